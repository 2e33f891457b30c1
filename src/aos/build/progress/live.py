"""The live display of a build on a terminal.

Vertices stand in the order of the plan, whatever the order in which they end: what has ended moves up and stays once
everything before it has ended, too. So the same build leaves the same lines behind.
"""

from __future__ import annotations

import collections
import os
import threading
from typing import IO, TYPE_CHECKING

from aos.build.progress.events import Event, Note, Output, Started, Warned, human_size
from aos.build.progress.printable import cut, printable, width
from aos.build.progress.screen import Screen
from aos.build.progress.tally import Row, Tally, seconds_text

if TYPE_CHECKING:
    from types import TracebackType

    from aos.build.progress.screen import Line
    from aos.clock import Clock

__all__ = ["LiveProgress"]

_OUTPUT_LINES = 6
"""At most, of each running vertex."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MARKS = {
    "done": ("✓", "green"),
    "cached": ("✓", "cyan"),
    "base": ("✓", "cyan"),
    "failed": ("✗", "red"),
    "waiting": ("◷", "yellow"),
    "to do": ("·", "dim"),
}


class LiveProgress:
    """A context manager. Events come from the build's thread, frames from one of its own, which is started when
    something is executed: an unchanged build needs none."""

    def __init__(
        self, stream: IO[str], clock: Clock, *, colour: bool | None = None, frame: float | None = 0.1
    ) -> None:
        """`frame`: seconds between two frames; None: somebody else calls `refresh`."""
        self._clock = clock
        self._frame = frame
        self._began = clock.monotonic()
        self._screen = Screen(stream, colour=not os.environ.get("NO_COLOR") if colour is None else colour)
        self._tally = Tally()
        self._started: dict[int, float] = {}
        self._output: dict[int, collections.deque[str]] = {}
        self._above: list[Line] = []
        self._settled: set[int] = set()
        """Rows that have moved up to stay. One comes again when its result turned out damaged and is made anew."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._drawing: threading.Thread | None = None

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._drawing is not None:
            self._drawing.join()
        columns, _ = self._screen.size()
        for index, row in self._open():
            if row.ended or row.status in ("running", "waiting"):
                self._above.append(self._row(index, row, columns, over=True))
        if totals := self._tally.totals(self._clock.monotonic() - self._began):
            self._above.append(((cut(totals, columns - 1), "bold" if error is None else "red"),))
        self._screen.draw(self._above, [])

    def emit(self, event: Event) -> None:
        with self._lock:
            self._tally.count(event)
            match event:
                case Output(vertex, line):
                    self._output[vertex].append(line)
                case Started(vertex):
                    self._settled.discard(vertex)
                    self._started[vertex] = self._clock.monotonic()
                    self._output[vertex] = collections.deque(maxlen=_OUTPUT_LINES)
                case Note(text):
                    self._settle()
                    self._above.append(((printable(text), ""),))
                case Warned(text):
                    self._settle()
                    self._above.append((("warning: ", "yellow"), (printable(text), "")))
                case _:
                    pass
        if self._drawing is None and self._frame is not None and isinstance(event, Started):
            self._drawing = threading.Thread(target=self._draw, name="progress", daemon=True)
            self._drawing.start()

    def refresh(self) -> None:
        """Draw what is known now."""
        with self._lock:
            above, region = self._contents()
        self._screen.draw(above, region)

    def _draw(self) -> None:
        while not self._over.wait(self._frame):
            self.refresh()

    def _contents(self) -> tuple[list[Line], list[Line]]:
        """What is to stay from now on, and what is under way."""
        columns, lines = self._screen.size()
        self._settle()
        above, self._above = self._above, []
        shown = [(index, row) for index, row in self._open() if row.status != "to do"]
        return above, [*self._region(shown, columns, lines - 2), self._summary(columns)]

    def _open(self) -> list[tuple[int, Row]]:
        """The rows that have not moved up."""
        return [(index, row) for index, row in enumerate(self._tally.rows) if index not in self._settled]

    def _settle(self) -> None:
        """Let rows that have ended move up for good, as far as everything before them has ended, too."""
        columns, _ = self._screen.size()
        for index, row in self._open():
            if not row.ended or row.status == "failed":
                break
            self._above.append(self._row(index, row, columns))
            self._settled.add(index)

    def _region(self, open_rows: list[tuple[int, Row]], columns: int, room: int) -> list[Line]:
        """Rows with the output of what runs, in at most `room` lines: first what has ended goes, then output."""
        hidden = 0
        while len(open_rows) + (hidden > 0 and room > 1) > max(1, room):
            ended = (
                place for place, (_, row) in enumerate(open_rows) if row.ended and row.status != "failed"
            )
            open_rows.pop(next(ended, -1))
            hidden += 1
        talking = [index for index, row in open_rows if row.status in ("running", "failed")]
        spare = max(0, room - len(open_rows) - bool(hidden))
        share = min(_OUTPUT_LINES, spare // len(talking)) if talking else 0
        region: list[Line] = []
        for index, row in open_rows:
            region.append(self._row(index, row, columns))
            if index in talking and share:
                region += [
                    (("  │ ", "dim"), (cut(printable(line), columns - 5), "dim"))
                    for line in list(self._output.get(index, ()))[-share:]
                ]
        if hidden and room > 1:
            region.append(((cut(f"  … and {hidden} more", columns - 1), "dim"),))
        return region

    def _row(self, index: int, row: Row, columns: int, *, over: bool = False) -> Line:
        """Mark, label, and at the right what there is to say."""
        seconds = row.seconds
        if row.status == "running":
            seconds = self._clock.monotonic() - self._started[index]
            frame = _SPINNER[int(self._clock.monotonic() * 10) % len(_SPINNER)]
            mark, style = ("■", "yellow") if over else (frame, "cyan")
        else:
            mark, style = _MARKS[row.status]
        said = cut(_said(row, seconds, over=over, narrow=columns < 60), columns - 6)
        room = max(1, columns - 4 - len(said))
        label = cut(row.label, room)
        padding = " " * (room - width(label))
        strength = {"running": "bold", "cached": "dim", "base": "dim", "failed": "red"}.get(row.status, "")
        return ((mark, style), (" ", ""), (label, strength), (f"{padding} {said}", "dim"))

    def _summary(self, columns: int) -> Line:
        tally, total = self._tally, len(self._tally.rows)
        ended = sum(row.ended for row in tally.rows)
        words = [f"{ended} of {total} steps", f"{tally.number('running')} running"]
        if cached := tally.number("cached"):
            words.append(f"{cached} cached")
        size = sum(row.size for row in tally.rows if row.status == "done")
        if size:
            words.append(f"{human_size(size)} made")
        text = f"{seconds_text(self._clock.monotonic() - self._began)}  {', '.join(words)}"
        return ((cut(text, columns - 1), "bold"),)


def _said(row: Row, seconds: float, *, over: bool, narrow: bool) -> str:
    time, size = seconds_text(seconds), human_size(row.size) if row.size else "no layer"
    match row.status:
        case "running":
            said, second = time, "stopped" if over else ""
        case "waiting":
            said, second = "another build", ""
        case "cached":
            said, second = "cached", size
        case "base":
            said, second = "found", size
        case "failed":
            said, second = time, "failed"
        case _:
            said, second = time, size
    return said if narrow else f"{said:>10} {second:>9}"
