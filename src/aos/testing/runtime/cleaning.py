"""What a sandbox leaves: nothing. Every case holds that for the host; these hold it for the process that manages."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import AosError
from aos.runtime.spec import Mount
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from aos.runtime.protocol import Runtime
    from aos.testing.runtime.kit import Kit


class Cleaning(Cases):
    async def _live(self, kit: Kit, runtime: Runtime) -> None:
        """Everything once, and several things that fail."""
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            os.close((await runtime.attach(id)).socket)
            await self.execute(runtime, id, self.process(kit, "print", "a", "b"))
            unstarted = await runtime.exec(id, self.process(kit, "sleep"), attach=False)
            with contextlib.suppress(AosError):
                await self.execute(runtime, id, self.process(kit, "missing"))
            cut = await runtime.exec(id, self.process(kit, "sleep"), attach=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(runtime.start_exec(id, cut.id), 0.1)
        with contextlib.suppress(AosError):
            await runtime.start_exec(id, unstarted.id)
        for bad in (self.spec(kit, "missing"), self.spec(kit, "sleep", user="nobody-of-this-name")):
            with contextlib.suppress(AosError):
                async with self.running(runtime, bad):
                    pass
        making = asyncio.create_task(runtime.create(id, self.spec(kit, "sleep")))
        await asyncio.wait([making], timeout=0.005)
        making.cancel()
        await asyncio.wait([making])
        await runtime.delete(id, force=True)

    @case
    async def test_no_descriptor_stays_open(self, kit: Kit) -> None:
        def opened() -> list[str]:
            gc.collect()
            return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())

        runtime = kit.make()
        await self._live(kit, runtime)  # what is opened once for all
        before = opened()
        await self._live(kit, runtime)
        async with asyncio.timeout(5):  # a thread may be about to close one
            while len(opened()) > len(before):
                await asyncio.sleep(0.02)

    @case
    async def test_no_child_is_left_unreaped(self, kit: Kit) -> None:
        def children() -> set[str]:
            found: set[str] = set()
            for task in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):  # the thread has ended meanwhile
                    found |= {*(task / "children").read_text().split()}
            return found

        before = children()
        await self._live(kit, kit.make())
        async with asyncio.timeout(5):
            while children() - before:
                await asyncio.sleep(0.02)

    @case
    async def test_no_task_is_left_running(self, kit: Kit) -> None:
        before = asyncio.all_tasks()
        await self._live(kit, kit.make())
        async with asyncio.timeout(5):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.02)

    @case
    async def test_creations_that_are_given_up_at_any_moment_leave_nothing(self, kit: Kit) -> None:
        """Cancelled by whoever asked for it, or deleted by another instance."""
        chance = random.Random(7)
        for _ in range(30):
            runtime, other, id = kit.make(), kit.make(), self.id()
            making = asyncio.create_task(runtime.create(id, self.spec(kit, "sleep")))
            await asyncio.wait([making], timeout=chance.choice([0.002, 0.01, 0.05]) * chance.random())
            if chance.random() < 0.5:
                making.cancel()
            else:
                await other.delete(id, force=True)
            with contextlib.suppress(AosError, asyncio.CancelledError):
                await making
            await runtime.delete(id, force=True)

    @case
    async def test_traces_are_seen_at_all(self, kit: Kit) -> None:
        """Else no case would notice what is left behind."""
        runtime = kit.make()
        before = kit.traces()
        async with self.running(runtime, self.spec(kit, "sleep")):
            assert kit.traces() - before

    @needs("files")
    @case
    async def test_mounts_are_gone_with_the_sandbox(self, kit: Kit, tmp_path: Path) -> None:
        runtime = kit.make()
        before = kit.traces()
        mounts = (
            Mount("tmpfs", "/a"),
            Mount("bind", "/b", tmp_path),
            Mount("file", "/c", data=b"x"),
            Mount("layers", "/d", layers=kit.layers),
        )
        async with self.running(runtime, replace(self.spec(kit, "sleep"), mounts=mounts)):
            pass
        async with asyncio.timeout(5):
            while kit.traces() - before:
                await asyncio.sleep(0.02)
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
        assert list(tmp_path.iterdir()) == []
