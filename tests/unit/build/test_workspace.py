"""Work directories are tied to their builds; solving is tied to the first failure."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from aos.build.plan import EMPTY, Plan, State, Vertex
from aos.build.solve import solve
from aos.build.threads import in_thread
from aos.build.workspace import dead_workspaces, open_workspace
from aos.errors import Aborted

if TYPE_CHECKING:
    from pathlib import Path


def test_a_workspace_ends_with_its_block(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(ZeroDivisionError), open_workspace(work, "abc") as workspace:
        first, second = workspace.fresh("upper"), workspace.fresh("upper")
        assert first != second
        (first / "file").write_text("x")
        with dead_workspaces(work) as dead:
            assert dead == [], "it lives"
        raise ZeroDivisionError
    assert list(work.iterdir()) == []


def _die_inside(work: Path, ready: threading.Event) -> None:
    with open_workspace(work, "dead") as workspace:
        (workspace.fresh("upper") / "file").write_text("x")
        ready.set()
        threading.Event().wait()


def test_a_dead_builds_workspace_is_found_and_removed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_die_inside, args=(tmp_path, ready))
    process.start()
    assert ready.wait(10)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(ZeroDivisionError), dead_workspaces(tmp_path) as dead:
        assert dead == ["dead"]
        raise ZeroDivisionError
    assert (tmp_path / "dead").exists(), "kept until what belongs to it could be removed"
    with dead_workspaces(tmp_path) as dead:
        assert dead == ["dead"]
    assert list(tmp_path.iterdir()) == []


def _plan(*parents: tuple[int, ...]) -> Plan:
    vertices = tuple(Vertex(index, "", str(index), {}, after=after) for index, after in enumerate(parents))
    return Plan(vertices, len(parents) - 1, "", "linux/amd64", 0)


def test_independent_vertices_run_at_once_and_parents_first() -> None:
    ended: list[int] = []
    together = asyncio.Event()
    waiting = 0

    async def execute(vertex: Vertex) -> State:
        nonlocal waiting
        if vertex.index in (0, 1):
            waiting += 1
            if waiting == 2:
                together.set()
            await together.wait()
        ended.append(vertex.index)
        return EMPTY

    states: dict[int, State] = {}
    asyncio.run(solve(_plan((), (), (0, 1), (2,)), states, execute, jobs=2))
    assert sorted(ended[:2]) == [0, 1]
    assert ended[2:] == [2, 3]
    assert sorted(states) == [0, 1, 2, 3]


def test_the_first_failure_cancels_the_rest_and_is_the_one_reported() -> None:
    started = asyncio.Event()
    cancelled: list[int] = []

    async def execute(vertex: Vertex) -> State:
        if vertex.index == 0:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(0)
                raise
        await started.wait()
        raise Aborted("it failed", code="step-failed")

    with pytest.raises(Aborted, match="it failed"):
        asyncio.run(solve(_plan((), (), (0, 1)), {}, execute, jobs=2))
    assert cancelled == [0]


def test_a_thread_is_waited_for_when_cancelled() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(10)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, release.set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())


def test_what_a_thread_raises_is_raised() -> None:
    def work() -> None:
        raise Aborted("x")

    with pytest.raises(Aborted):
        asyncio.run(in_thread(work))
