"""Standing still, and going on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

import pytest

from aos.errors import FailedPrecondition
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, collect, needs, said

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


@needs("pause")
class Pausing(Cases):
    @case
    async def test_pause_and_resume(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            for _ in range(2):
                await runtime.pause(id)
                assert await self.state(runtime, id) is SandboxState.PAUSED
                with pytest.raises(FailedPrecondition):
                    await runtime.pause(id)
                await runtime.resume(id)
                assert await self.state(runtime, id) is SandboxState.RUNNING
                with pytest.raises(FailedPrecondition):
                    await runtime.resume(id)

    @case
    async def test_nothing_goes_on_while_it_is_paused(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "count")) as id:
            await self.counted(runtime, id, 2)
            await runtime.pause(id)
            await asyncio.sleep(0.05)  # what it had written is still on its way to the log
            last = (await self.counted(runtime, id))[-1]
            await asyncio.sleep(0.2)
            assert (await self.counted(runtime, id))[-1] == last
            await runtime.resume(id)
            numbers = await self.counted(runtime, id, last)
            assert numbers == list(range(1, len(numbers) + 1))

    @case
    async def test_a_paused_sandbox_can_be_killed(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.pause(id)
            await runtime.signal(id, signal.SIGKILL)
            assert (await runtime.wait(id)).signal == signal.SIGKILL
            assert await self.state(runtime, id) is SandboxState.STOPPED

    @case
    async def test_a_paused_sandbox_can_be_deleted(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.pause(id)
            await runtime.delete(id, force=True)
            assert await runtime.list() == []

    @needs("pause-signals")
    @case
    async def test_a_signal_waits_for_the_end_of_a_pause(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "trap", "TERM", "7")) as id:
            await self.logged(runtime, id, "ready")
            await runtime.pause(id)
            await runtime.signal(id, signal.SIGTERM)
            waiting = asyncio.create_task(runtime.wait(id))
            await asyncio.wait([waiting], timeout=0.2)
            assert await self.state(runtime, id) is SandboxState.PAUSED
            await runtime.resume(id)
            assert (await waiting).code == 7

    @case
    async def test_an_exec_stands_still_with_its_sandbox(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "count"), attach=True)
            assert made.stdio is not None
            ended = asyncio.create_task(runtime.start_exec(id, made.id))
            await said(made.stdio, b"3\n")
            await runtime.pause(id)
            await asyncio.sleep(0.05)
            os.set_blocking(made.stdio.socket, False)
            with contextlib.suppress(BlockingIOError):
                while os.read(made.stdio.socket, 8193):
                    pass
            assert await asyncio.to_thread(select.select, [made.stdio.socket], [], [], 0.2) == ([], [], [])
            assert not ended.done()
            await runtime.resume(id)
            await said(made.stdio, b"\n")
            await runtime.delete(id, force=True)
            await collect(made.stdio)
            assert (await ended).code != 0

    @case
    async def test_an_exec_is_not_started_while_its_sandbox_is_paused(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "exit", "4"), attach=False)
            await runtime.pause(id)
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.start_exec(id, made.id)
            assert refused.value.code == "sandbox-state"
            await runtime.resume(id)
            assert (await runtime.start_exec(id, made.id)).code == 4

    @needs("stats")
    @case
    async def test_a_paused_sandbox_has_its_figures(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.pause(id)
            assert (await runtime.stats(id)).cpu_seconds is not None
