"""The solver: order, how many at once, and what a failure or a cancellation does to the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.build.plan.graph import EMPTY, Plan, State, Vertex
from aos.build.solve.solve import Turn, solve
from aos.errors import Aborted, Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def _plan(*parents: tuple[int, ...]) -> Plan:
    vertices = tuple(Vertex(index, "", str(index), {}, after=after) for index, after in enumerate(parents))
    return Plan(vertices, len(parents) - 1, "", "linux/amd64", 0)


def _solve(
    plan: Plan,
    execute: Callable[[Vertex], Awaitable[None]],
    jobs: int = 2,
    states: dict[int, State] | None = None,
) -> dict[int, State]:
    found: dict[int, State] = {} if states is None else states

    async def perform(vertex: Vertex, turn: Turn) -> State:
        async with turn:
            await execute(vertex)
        return EMPTY

    asyncio.run(solve(plan, found, perform, jobs=jobs))
    return found


def test_independent_vertices_run_at_once_and_parents_first() -> None:
    ended: list[int] = []
    both = asyncio.Barrier(2)

    async def execute(vertex: Vertex) -> None:
        if vertex.index < 2:
            await both.wait()
        ended.append(vertex.index)

    states = _solve(_plan((), (), (0, 1), (2,)), execute)
    assert sorted(ended[:2]) == [0, 1]
    assert ended[2:] == [2, 3]
    assert sorted(states) == [0, 1, 2, 3]


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=10), st.integers(1, 4))
def test_any_graph_is_executed_once_each_in_order_and_never_more_than_jobs_at_once(
    wanted: list[list[int]], jobs: int
) -> None:
    parents = [tuple({one % at for one in some}) if at else () for at, some in enumerate(wanted)]
    ended: list[int] = []
    running = 0

    async def execute(vertex: Vertex) -> None:
        nonlocal running
        assert set(vertex.parents) <= set(ended)
        running += 1
        assert running <= jobs
        await asyncio.sleep(0)
        running -= 1
        ended.append(vertex.index)

    _solve(_plan(*parents), execute, jobs)
    assert sorted(ended) == list(range(len(parents)))


def test_a_failure_starts_nothing_more_and_lets_what_runs_end() -> None:
    started: list[int] = []
    failed, both = asyncio.Event(), asyncio.Barrier(2)

    async def execute(vertex: Vertex) -> None:
        started.append(vertex.index)
        if vertex.index < 2:
            await both.wait()
        if vertex.index == 0:
            failed.set()
            raise Aborted("it failed", code="step-failed")
        await failed.wait()
        await asyncio.sleep(0)

    states: dict[int, State] = {}
    with pytest.raises(Aborted, match="it failed"):
        _solve(_plan((), (), (), (1,), (0,)), execute, 2, states)
    assert started == [0, 1], "neither what waits for its turn, nor what depends on either"
    assert list(states) == [1]


def test_several_failures_are_all_told_and_the_first_decides() -> None:
    both = asyncio.Barrier(2)

    async def execute(vertex: Vertex) -> None:
        await both.wait()
        if vertex.index == 0:
            await asyncio.sleep(0.01)
            raise Aborted("the slow one")
        raise Conflict("the quick one")

    with pytest.raises(Conflict) as caught:
        _solve(_plan((), ()), execute)
    assert "the quick one" in caught.value.message
    assert "the slow one" in caught.value.message


def test_a_cancelled_solve_cancels_all_that_runs() -> None:
    cancelled: list[int] = []

    async def main() -> None:
        running = asyncio.Barrier(3)

        async def execute(vertex: Vertex, turn: Turn) -> State:
            async with turn:
                try:
                    await running.wait()
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(vertex.index)
                    raise
            return EMPTY

        task = asyncio.create_task(solve(_plan((), ()), {}, execute, jobs=2))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert sorted(cancelled) == [0, 1]
