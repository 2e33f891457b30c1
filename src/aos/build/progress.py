"""What a build says while it works: a few events, and where they go.

The same events feed the live display (`live.py`), the plain lines here, and later a JSON stream.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Cached",
    "Event",
    "Failed",
    "Finished",
    "Note",
    "Output",
    "PlainProgress",
    "Planned",
    "Progress",
    "Quiet",
    "Started",
    "Waiting",
    "open_progress",
]


@dataclass(frozen=True, slots=True)
class Planned:
    """The build begins. `labels` names every vertex; events refer to them by position."""

    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Cached:
    """The vertex's result is known from an earlier build: nothing was executed."""

    vertex: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another build executes the vertex; this one waits for the result, or for its turn."""

    vertex: int


@dataclass(frozen=True, slots=True)
class Started:
    vertex: int


@dataclass(frozen=True, slots=True)
class Output:
    """One line (without its end) that the vertex's command wrote."""

    vertex: int
    line: str


@dataclass(frozen=True, slots=True)
class Finished:
    vertex: int
    seconds: float
    size: int
    """Of the layer blob, in bytes; 0 when the vertex changed nothing."""


@dataclass(frozen=True, slots=True)
class Failed:
    vertex: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line that belongs to no vertex (a warning, what was exported)."""

    text: str


Event = Planned | Cached | Waiting | Started | Output | Finished | Failed | Note


class Progress(Protocol):
    def emit(self, event: Event) -> None:
        """Called from the thread of the event loop only; must not block for long and must not raise."""
        ...


@contextlib.contextmanager
def open_progress(how: Literal["quiet", "plain", "live"]) -> Iterator[Progress]:
    """Where the events of a build go; standard error, unless they go nowhere."""
    if how == "live":
        from aos.build.live import LiveProgress

        with LiveProgress() as live:
            yield live
    else:
        yield PlainProgress(sys.stderr) if how == "plain" else Quiet()


class Quiet:
    def emit(self, event: Event) -> None:
        pass


class PlainProgress:
    """Plain lines, each with the number of its vertex: for logs, pipes and CI."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._labels: Sequence[str] = ()

    def emit(self, event: Event) -> None:
        line = self._line(event)
        if line is None:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads any more: the build goes on
            pass

    def _line(self, event: Event) -> str | None:
        match event:
            case Planned(labels):
                self._labels = labels
                return None
            case Cached(vertex):
                return f"#{vertex + 1} {self._labels[vertex]}: cached"
            case Waiting(vertex):
                return f"#{vertex + 1} {self._labels[vertex]}: another build executes it"
            case Started(vertex):
                return f"#{vertex + 1} {self._labels[vertex]}"
            case Output(vertex, line):
                return f"#{vertex + 1} | {printable(line)}"
            case Finished(vertex, seconds, size):
                return f"#{vertex + 1} done in {seconds:.1f} s, {human_size(size)}"
            case Failed(vertex, seconds):
                return f"#{vertex + 1} FAILED after {seconds:.1f} s"
            case Note(text):
                return text


def printable(line: str) -> str:
    """The line without what would move a terminal's cursor: the last carriage-return part, no escapes."""
    line = line.rstrip("\r").rsplit("\r", 1)[-1]
    return "".join(
        char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in line
    )


def human_size(size: float) -> str:
    """`size` bytes in decimal units, as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
