"""The memory backend passes the suite of every backend, and injects the faults it is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aos.clock import SystemClock
from aos.errors import ResourceExhausted
from aos.ids import SandboxId
from aos.runtime.backends.memory import MemoryProcess, MemoryRuntime
from aos.runtime.spec import AgentSpec, ProcessSpec, Rootfs
from aos.testing.runtime import RuntimeConformance

if TYPE_CHECKING:
    from pathlib import Path


async def exit_with(process: MemoryProcess) -> int:
    return int(process.args[0])


async def print_lines(process: MemoryProcess) -> None:
    process.print(process.args[0])
    process.print(process.args[1], error=True)


async def cat(process: MemoryProcess) -> None:
    for line in (await process.read_all()).splitlines():
        process.print(line)


async def sleep(_: MemoryProcess) -> None:
    await asyncio.Event().wait()


async def env(process: MemoryProcess) -> None:
    process.print(process.env.get(process.args[0], ""))


async def hostname(process: MemoryProcess) -> None:
    process.print(process.hostname)


async def hungry(process: MemoryProcess) -> None:
    process.run_out_of_memory()


async def leave(process: MemoryProcess) -> None:
    process.exit(5)


PROGRAMS = {
    "exit": exit_with,
    "print": print_lines,
    "cat": cat,
    "sleep": sleep,
    "env": env,
    "hostname": hostname,
    "hungry": hungry,
    "leave": leave,
}


class MemoryKit:
    layers = ()

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._first: MemoryRuntime | None = None

    def make(self) -> MemoryRuntime:
        world = self._first.world if self._first else None
        made = MemoryRuntime(PROGRAMS, self._logs, SystemClock(), world)
        self._first = self._first or made
        return made

    def command(self, program: str, *args: str) -> tuple[str, ...]:
        return (program, *args)


class TestMemory(RuntimeConformance):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> MemoryKit:
        return MemoryKit(tmp_path / "logs")

    def test_faults_are_raised_once(self, kit: MemoryKit) -> None:
        async def go() -> None:
            runtime = kit.make()
            runtime.faults["create"] = ResourceExhausted("no space", code="disk-full")
            spec = AgentSpec(ProcessSpec(("leave",)), Rootfs(()))
            with pytest.raises(ResourceExhausted):
                await runtime.create(SandboxId("a"), spec)
            assert await runtime.list() == []
            await runtime.create(SandboxId("a"), spec)
            await runtime.start(SandboxId("a"))
            assert (await runtime.wait(SandboxId("a"))).code == 5

        asyncio.run(go())

    def test_running_out_of_memory_is_a_cause(self, kit: MemoryKit) -> None:
        async def go() -> None:
            runtime = kit.make()
            await runtime.create(SandboxId("a"), AgentSpec(ProcessSpec(("hungry",)), Rootfs(())))
            await runtime.start(SandboxId("a"))
            assert (await runtime.wait(SandboxId("a"))).cause == "oom"

        asyncio.run(go())
