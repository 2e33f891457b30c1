"""The progress of a build for programs: one JSON object a line. Its fields are a contract: docs/build.md."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

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
)
from aos.build.progress.tally import Tally

if TYPE_CHECKING:
    from types import TracebackType

    from aos.build.plan.graph import Vertex
    from aos.clock import Clock

__all__ = ["JsonProgress"]


class JsonProgress:
    def __init__(self, stream: IO[str], clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._began = clock.monotonic()
        self._tally = Tally()

    def __enter__(self) -> JsonProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(
            "ended",
            ok=error is None,
            executed=self._tally.number("done"),
            cached=self._tally.number("cached"),
            failed=self._tally.number("failed"),
            seconds=round(self._clock.monotonic() - self._began, 3),
            seconds_saved=round(self._tally.saved, 3),
        )

    def emit(self, event: Event) -> None:
        self._tally.count(event)
        match event:
            case Planned(vertices):
                self._write("planned", vertices=[_vertex(vertex) for vertex in vertices])
            case Cached(vertex, seconds, size):
                self._write("cached", vertex, seconds_saved=round(seconds, 3), size=size)
            case Waiting(vertex):
                self._write("waiting", vertex)
            case Started(vertex):
                self._write("started", vertex)
            case Output(vertex, line):
                self._write("output", vertex, line=line)
            case Finished(vertex, seconds, size):
                self._write("finished", vertex, seconds=round(seconds, 3), size=size)
            case Failed(vertex, seconds):
                self._write("failed", vertex, seconds=round(seconds, 3))
            case Note(text):
                self._write("note", text=text)
            case Warned(text, vertex):
                self._write("warning", vertex, text=text)

    def _write(self, event: str, vertex: int | None = None, **fields: Any) -> None:
        line: dict[str, Any] = {"event": event, "time": round(self._clock.monotonic() - self._began, 3)}
        if vertex is not None:
            line["vertex"] = vertex + 1
        try:
            self._stream.write(json.dumps(line | fields) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads any more: the build goes on
            pass


def _vertex(vertex: Vertex) -> dict[str, Any]:
    return {
        "vertex": vertex.index + 1,
        "stage": vertex.stage,
        "label": vertex.label,
        "kind": vertex.step.kind if vertex.step else "base",
        "parents": [parent + 1 for parent in vertex.parents],
    }
