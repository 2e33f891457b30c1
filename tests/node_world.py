"""A host without a kernel under it, for nodes that are killed: the memory backend, a journal in memory, and `kill -9`.

A node is killed as kill -9 does it: from one moment on nothing it asks for happens, and nothing answers it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from aos.clock import SystemClock
from aos.errors import AosError
from aos.ids import RandomIds
from aos.kernel.journal import MemoryJournal
from aos.kernel.process.records import Agent, Program
from aos.node.adoption import adopt
from aos.node.node import Node
from aos.runtime.backends.memory import MemoryProcess, MemoryRuntime
from aos.runtime.facade import RuntimeFacade
from aos.runtime.spec import AgentSpec, Limits, ProcessSpec, Rootfs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from aos.node import processes

CRASH_CODE = 7


async def _sleep(process: MemoryProcess) -> None:
    await asyncio.Event().wait()


async def _exit(process: MemoryProcess) -> int:
    return int(process.args[0])


async def _brief(process: MemoryProcess) -> int:
    await asyncio.sleep(0.01)
    return CRASH_CODE


PROGRAMS: dict[str, Callable[[MemoryProcess], Awaitable[int | None]]] = {
    "sleep": _sleep,
    "exit": _exit,
    "brief": _brief,
}


class Programs:
    async def spec(self, program: Program, hostname: str) -> AgentSpec:
        limits = program.overrides.get("limits") or {}
        return AgentSpec(
            ProcessSpec(program.command), Rootfs(()), hostname=hostname, limits=Limits(limits.get("memory"))
        )

    def secret_values(self, program: Program) -> list[bytes]:
        return []

    def forget(self, program: Program) -> None:
        pass


class Mortal:
    """Something of a node's world; once the node is dead, no call begins and none is answered."""

    def __init__(self, thing: Any, life: asyncio.Event) -> None:
        self._thing = thing
        self._life = life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._gate()
            try:
                result = await found(*args, **kwargs)
            except AosError:
                await self._gate()
                raise
            await self._gate()
            return result

        return call

    async def _gate(self) -> None:
        if self._life.is_set():
            await asyncio.Event().wait()


@dataclass
class Host:
    """What outlives nodes: sandboxes, the journal, the disk."""

    logs: Path
    boot: str = "first"
    programs: processes.Programs = field(default_factory=Programs)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    world: dict[Any, Any] = field(default_factory=dict)
    runtime: MemoryRuntime = field(init=False)

    def __post_init__(self) -> None:
        self.logs.mkdir(exist_ok=True)
        self.runtime = MemoryRuntime(PROGRAMS, self.logs, SystemClock(), self.world)

    @contextlib.asynccontextmanager
    async def node(self) -> AsyncIterator[Node]:
        """A node until the end of the block, and then kill -9."""
        life = asyncio.Event()
        facade = RuntimeFacade({"memory": self.runtime}, "memory")
        node = Node(
            runtime=cast("RuntimeFacade", Mortal(facade, life)),
            journal=cast("MemoryJournal", Mortal(self.journal, life)),
            programs=self.programs,
            logs=self.logs,
            clock=SystemClock(),
            ids=RandomIds(),
            boot=self.boot,
        )
        try:
            await adopt(node)
            yield node
        finally:
            life.set()
            await node.probes.end()
            while tasks := set(node._tasks):  # what cleans up after itself waits for an answer, for ever
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=0.01)

    def reboot(self) -> None:
        """Every process is gone; what is on the disk stays."""
        self.boot += "+"
        for held in self.world.values():
            if held.task is not None:
                held.task.cancel()
        self.world.clear()


async def run(node: Node, name: str, *command: str, restart: str = "never", **more: Any) -> Agent:
    program = Program("it:1", "sha256:0", "it", "1.0.0", command, "", {}, grace=0.0, **more)
    agent, _, _ = await node.run(program, name=name, restart=restart, remove=False, attach=False, size=None)
    return agent


async def until(node: Node, condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10), node.changed:
        await node.changed.wait_for(condition)
