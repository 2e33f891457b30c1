"""What the events of a build add up to: the state of each vertex, and the totals. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aos.build.progress.events import Cached, Event, Failed, Finished, Planned, Started, Waiting
from aos.build.progress.printable import printable

if TYPE_CHECKING:
    from aos.build.plan.graph import Vertex

__all__ = ["Row", "Status", "Tally", "seconds_text"]

Status = Literal["to do", "waiting", "running", "done", "cached", "base", "failed"]


@dataclass(slots=True)
class Row:
    """One vertex, as far as is known."""

    label: str
    base: bool
    """It resolves a base: nothing is executed."""
    status: Status = "to do"
    seconds: float = 0.0
    """Of a vertex that has ended: what it took; of a cached one, what it would have."""
    size: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ("done", "cached", "base", "failed")


class Tally:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def count(self, event: Event) -> None:
        match event:
            case Planned(vertices):
                self.rows = [_row(vertex) for vertex in vertices]
            case Cached(vertex, seconds, size):
                row = self.rows[vertex]
                self._end(row, "base" if row.base else "cached", seconds, size)
            case Waiting(vertex):
                self.rows[vertex].status = "waiting"
            case Started(vertex):
                self.rows[vertex].status = "running"
            case Finished(vertex, seconds, size):
                self._end(self.rows[vertex], "done", seconds, size)
            case Failed(vertex, seconds):
                self._end(self.rows[vertex], "failed", seconds, 0)
            case _:
                pass

    def number(self, status: Status) -> int:
        return sum(row.status == status for row in self.rows)

    @property
    def saved(self) -> float:
        """Seconds that the cached vertices once cost."""
        return sum(row.seconds for row in self.rows if row.status == "cached")

    def totals(self, seconds: float) -> str:
        """One line on a build that took `seconds`; empty when nothing was planned."""
        if not self.rows:
            return ""
        parts = [
            f"{number} {word}"
            for word, number in (
                ("executed", self.number("done")),
                ("cached", self.number("cached")),
                ("failed", self.number("failed")),
                ("stopped", self.number("running")),
            )
            if number
        ]
        saved = f"; the cache saved {seconds_text(self.saved)}" if self.saved >= 0.05 else ""
        return f"{', '.join(parts) or 'nothing to execute'} in {seconds_text(seconds)}{saved}"

    @staticmethod
    def _end(row: Row, status: Status, seconds: float, size: int) -> None:
        row.status, row.seconds, row.size = status, seconds, size


def seconds_text(seconds: float) -> str:
    """`12.3 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _row(vertex: Vertex) -> Row:
    return Row(printable(vertex.label), base=vertex.step is None)
