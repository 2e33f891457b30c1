"""The live display of a build on a terminal (rich is imported only here)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from aos.build.progress import (
    Cached,
    Event,
    Failed,
    Finished,
    Note,
    Output,
    Planned,
    Started,
    human_size,
    printable,
)
from aos.clock import SystemClock

if TYPE_CHECKING:
    from types import TracebackType

    from aos.clock import Clock

__all__ = ["LiveProgress"]

_OUTPUT_LINES = 6  # of each running step
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class LiveProgress:
    """A context manager; what finished stays on the screen above, what runs is redrawn below."""

    def __init__(self, console: Console | None = None, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._console = console or Console(stderr=True, highlight=False)
        self._labels: list[str] = []
        self._running: dict[int, tuple[float, list[str]]] = {}
        self._finished = 0
        self._live = Live(
            console=self._console, refresh_per_second=10, get_renderable=self._draw, transient=True
        )

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def emit(self, event: Event) -> None:
        match event:
            case Planned(labels):
                self._labels = [printable(label) for label in labels]
            case Cached(vertex):
                self._end(vertex, Text("✓ ", "green"), "cached", "dim")
            case Started(vertex):
                self._running[vertex] = (self._clock.monotonic(), [])
            case Output(vertex, line):
                lines = self._running[vertex][1]
                lines.append(printable(line))
                del lines[:-_OUTPUT_LINES]
            case Finished(vertex, seconds, size):
                self._end(vertex, Text("✓ ", "green"), f"{seconds:.1f} s  {human_size(size)}", "")
            case Failed(vertex, seconds):
                self._end(vertex, Text("✗ ", "red"), f"{seconds:.1f} s", "red")
            case Note(text):
                self._console.print(Text(text))

    def _end(self, vertex: int, mark: Text, said: str, style: str) -> None:
        self._running.pop(vertex, None)
        self._finished += 1
        self._live.refresh()  # so that what is printed next does not redraw a step that has ended
        self._console.print(self._row(mark, self._labels[vertex], said, style))

    def _row(self, mark: Text, label: str, said: str, style: str) -> Text:
        room = max(20, self._console.width - len(said) - 5)
        label = label if len(label) <= room else label[: room - 1] + "…"
        return Text.assemble(mark, (label.ljust(room), style), " ", (said, "dim"))

    def _draw(self) -> Group:
        now = self._clock.monotonic()
        rows: list[Text] = []
        for vertex, (began, lines) in sorted(self._running.items()):
            frame = _SPINNER[int(now * 10) % len(_SPINNER)]
            rows.append(
                self._row(Text(f"{frame} ", "cyan"), self._labels[vertex], f"{now - began:.1f} s", "bold")
            )
            rows += [Text(f"  │ {line}", "dim", no_wrap=True, overflow="ellipsis") for line in lines]
        rows.append(Text(f"{self._finished}/{len(self._labels)} steps", "dim"))
        return Group(*rows)
