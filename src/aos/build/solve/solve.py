"""Execute a plan: every vertex once its parents have succeeded, independent ones at the same time.

When a vertex fails, nothing more is started, and what runs already runs to its end, so that its result is cached
(as `make` does). A cancelled solve cancels everything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aos.errors import AosError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from aos.build.plan.graph import Plan, State, Vertex

__all__ = ["Turn", "solve"]


class _Slots(asyncio.Semaphore):
    """As many as vertices may execute at once; no more are given once one has failed."""

    closed = False


class Turn:
    """A vertex's turn to execute, `async with`: at most `jobs` have theirs at once, the first in line first.

    It may be left and taken again, to wait for something else without keeping others from working.
    """

    def __init__(self, slots: _Slots) -> None:
        self._slots = slots
        self.taken = False

    async def __aenter__(self) -> None:
        await self._slots.acquire()
        if self._slots.closed:  # it failed between two looks of `solve`, which would have cancelled this one
            self._slots.release()
            raise asyncio.CancelledError
        self.taken = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.taken = False
        self._slots.closed |= isinstance(error, Exception)
        self._slots.release()


async def solve(
    plan: Plan,
    states: dict[int, State],
    execute: Callable[[Vertex, Turn], Coroutine[object, object, State]],
    *,
    jobs: int,
) -> None:
    """Fill `states` for every vertex that has none, at most `jobs` at once.

    The first failure is raised once nothing runs any more, and names the others; what had succeeded is in `states`.
    """
    slots = _Slots(jobs)
    failures: list[BaseException] = []
    children: dict[int, list[Vertex]] = {vertex.index: [] for vertex in plan.vertices}
    missing: dict[int, int] = {}
    for vertex in plan.vertices:
        if vertex.index not in states:
            unknown = [parent for parent in vertex.parents if parent not in states]
            missing[vertex.index] = len(unknown)
            for parent in unknown:
                children[parent].append(vertex)
    running: dict[asyncio.Task[State], tuple[Vertex, Turn]] = {}

    def start(vertex: Vertex) -> None:
        turn = Turn(slots)
        running[asyncio.create_task(execute(vertex, turn), name=vertex.label)] = (vertex, turn)

    for vertex in plan.vertices:
        if missing.get(vertex.index) == 0:
            start(vertex)
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: running[task][0].index):
                vertex, _ = running.pop(task)
                if task.cancelled():
                    continue
                if (error := task.exception()) is not None:
                    failures.append(error)
                    continue
                states[vertex.index] = task.result()
                for child in children[vertex.index]:
                    missing[child.index] -= 1
                    if missing[child.index] == 0 and not failures:
                        start(child)
            if failures:
                for task, (_, turn) in running.items():
                    if not turn.taken:
                        task.cancel()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if failures:
        raise _combined(failures)


def _combined(failures: list[BaseException]) -> BaseException:
    """The first failure, told with the others; an error for people before anything unexpected it may have caused."""
    first = next((error for error in failures if isinstance(error, AosError)), failures[0])
    if isinstance(first, AosError):
        others = [error for error in failures if error is not first]
        first.message += "".join(f"\nalso: {getattr(error, 'message', repr(error))}" for error in others)
    return first
