"""Execute a plan: every vertex once its parents have succeeded, independent ones at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aos.errors import AosError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aos.build.plan import Plan, State, Vertex

__all__ = ["solve"]


async def solve(
    plan: Plan, states: dict[int, State], execute: Callable[[Vertex], Awaitable[State]], *, jobs: int
) -> None:
    """Fill `states` for every vertex that has none, at most `jobs` at once.

    The first failure cancels what is under way and is raised; what had finished stays in `states`.
    """
    done = {vertex.index: asyncio.Event() for vertex in plan.vertices}
    for index in states:
        done[index].set()
    slots = asyncio.Semaphore(jobs)

    async def perform(vertex: Vertex) -> None:
        for parent in vertex.parents:
            await done[parent].wait()
        async with slots:
            states[vertex.index] = await execute(vertex)
        done[vertex.index].set()

    try:
        async with asyncio.TaskGroup() as group:
            for vertex in plan.vertices:
                if vertex.index not in states:
                    group.create_task(perform(vertex))
    except BaseExceptionGroup as failures:
        raise _worst(failures) from None


def _worst(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure to report: an error for people before anything unexpected that it may have caused."""
    errors = list(failures.exceptions)
    return next((error for error in errors if isinstance(error, AosError)), errors[0])
