"""What a build says while it works: a few events, and where they go.

The same events feed the live display (`live.py`), the plain lines (`plain.py`) and the JSON lines (`json_lines.py`);
what they add up to is in `tally.py`. The fields of the JSON lines are documented in docs/build.md.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aos.build.plan.graph import Vertex

__all__ = [
    "Cached",
    "Event",
    "Failed",
    "Finished",
    "How",
    "Note",
    "Output",
    "Planned",
    "Progress",
    "Quiet",
    "Started",
    "Waiting",
    "Warned",
    "human_size",
    "open_progress",
]

How = Literal["quiet", "plain", "live", "json"]


@dataclass(frozen=True, slots=True)
class Planned:
    """The build begins. Events refer to its vertices by position."""

    vertices: Sequence[Vertex]


@dataclass(frozen=True, slots=True)
class Cached:
    """The vertex's result is known: from an earlier build, or, of a base, because it is a package already."""

    vertex: int
    seconds: float = 0.0
    """What its execution cost when it was executed: what is saved now."""
    size: int = 0
    """Of the layer blob, in bytes; of all layers of a base; 0 when the vertex changed nothing."""


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
    """Something worth a line that belongs to no vertex: what was built, what was exported."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that a person should look at; the build goes on."""

    text: str
    vertex: int | None = None


Event = Planned | Cached | Waiting | Started | Output | Finished | Failed | Note | Warned


class Progress(Protocol):
    def emit(self, event: Event) -> None:
        """Called from the thread of the event loop only; must not block for long and must not raise."""
        ...


@contextlib.contextmanager
def open_progress(how: How) -> Iterator[Progress]:
    """Where the events of a build go; standard error, unless they go nowhere. What it adds up to is said at the end."""
    from aos.clock import SystemClock

    if how == "live":
        from aos.build.progress.live import LiveProgress

        with LiveProgress(sys.stderr, SystemClock()) as live:
            yield live
    elif how == "plain":
        from aos.build.progress.plain import PlainProgress

        with PlainProgress(sys.stderr, SystemClock()) as plain:
            yield plain
    elif how == "json":
        from aos.build.progress.json_lines import JsonProgress

        with JsonProgress(sys.stderr, SystemClock()) as lines:
            yield lines
    else:
        yield Quiet()


class Quiet:
    def emit(self, event: Event) -> None:
        pass


def human_size(size: float) -> str:
    """`size` bytes in decimal units, as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
