"""The progress of a build as plain lines: for logs, pipes and CI."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from aos.build.progress.events import (
    Cached,
    Event,
    Failed,
    Finished,
    Note,
    Output,
    Planned,
    Started,
    Waiting,
    Warned,
    human_size,
)
from aos.build.progress.printable import printable
from aos.build.progress.tally import Tally, seconds_text

if TYPE_CHECKING:
    from types import TracebackType

    from aos.clock import Clock

__all__ = ["PlainProgress"]


class PlainProgress:
    """Each line begins with the number of its vertex in the plan and the seconds since the build began, and is
    flushed. Numbers are the same in every build of a plan; lines come as things happen."""

    def __init__(self, stream: IO[str], clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._began = clock.monotonic()
        self._tally = Tally()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if totals := self._tally.totals(self._clock.monotonic() - self._began):
            self._write(totals)

    def emit(self, event: Event) -> None:
        self._tally.count(event)
        said = self._said(event)
        if said is None:
            return
        vertex = getattr(event, "vertex", None)
        if vertex is not None:
            said = f"#{vertex + 1} {self._clock.monotonic() - self._began:.2f} {said}"
        self._write(said)

    def _said(self, event: Event) -> str | None:
        rows = self._tally.rows
        match event:
            case Planned():
                return None
            case Cached(vertex, seconds, size):
                how = "found" if rows[vertex].base else "cached"
                saved = f", saved {seconds_text(seconds)}" if seconds >= 0.05 else ""
                return f"{rows[vertex].label}: {how}, {human_size(size)}{saved}"
            case Waiting(vertex):
                return f"{rows[vertex].label}: another build executes it"
            case Started(vertex):
                return rows[vertex].label
            case Output(_, line):
                return f"| {printable(line)}"
            case Finished(_, seconds, size):
                return f"done in {seconds_text(seconds)}, {human_size(size)}"
            case Failed(vertex, seconds):
                return f"FAILED after {seconds_text(seconds)}: {rows[vertex].label}"
            case Note(text):
                return printable(text)
            case Warned(text):
                return f"warning: {printable(text)}"

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads any more: the build goes on
            pass
