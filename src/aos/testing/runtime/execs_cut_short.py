"""Execs that do not come to their end: somebody is always told, soon, and nothing is left."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from aos.errors import AosError
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, collect, said

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


class ExecsCutShort(Cases):
    @case
    async def test_an_exec_that_is_cut_off_ends(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "ignore"), attach=True)
            assert made.stdio is not None
            with socket.socket(fileno=made.stdio.socket) as stream:
                running = asyncio.create_task(runtime.start_exec(id, made.id))
                await said(made.stdio, b"ready\n")
                running.cancel()
                await asyncio.wait([running])
                stream.settimeout(5)
                while await asyncio.to_thread(stream.recv, 8193):
                    pass  # the end of its streams: nothing of it holds them any more
            assert await self.state(runtime, id) is SandboxState.RUNNING
            assert (await self.execute(runtime, id, self.process(kit, "exit", "2"))).status.code == 2

    @pytest.mark.parametrize("delay", [0.0, 0.002, 0.01])
    @case
    async def test_a_cancelled_exec_leaves_the_sandbox_as_it_was(self, kit: Kit, delay: float) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            making = asyncio.create_task(runtime.exec(id, self.process(kit, "sleep"), attach=False))
            await asyncio.wait([making], timeout=delay)
            making.cancel()
            await asyncio.wait([making])
            assert await self.state(runtime, id) is SandboxState.RUNNING
            assert (await self.execute(runtime, id, self.process(kit, "exit", "2"))).status.code == 2

    @pytest.mark.parametrize("attach", [False, True])
    @case
    async def test_exec_is_answered_when_the_sandbox_dies_under_it(self, kit: Kit, attach: bool) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "ignore"), attach=attach)
            waiting = asyncio.create_task(runtime.start_exec(id, made.id))
            if made.stdio is not None:
                await said(made.stdio, b"ready\n")
            else:
                await asyncio.wait([waiting], timeout=0.2)
            await runtime.signal(id, signal.SIGKILL)
            await runtime.wait(id)
            died = time.monotonic()
            status = await waiting
            assert time.monotonic() - died < 1
            assert status.code != 0
            if made.stdio is not None:
                await collect(made.stdio)
            assert time.monotonic() - died < 1

    @case
    async def test_exec_that_was_not_started_when_the_sandbox_died(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "exit", "0"), attach=False)
            await runtime.signal(id, signal.SIGKILL)
            await runtime.wait(id)
            async with asyncio.timeout(1):
                try:
                    assert (await runtime.start_exec(id, made.id)).code != 0
                except AosError as error:
                    assert error.code in ("sandbox-state", "exec-not-found"), error.code

    @case
    async def test_the_sandbox_may_end_by_itself_under_an_exec(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "cat", stdin=True)) as id:
            made = await runtime.exec(id, self.process(kit, "ignore"), attach=False)
            waiting = asyncio.create_task(runtime.start_exec(id, made.id))
            await asyncio.wait([waiting], timeout=0.2)
            await collect(await runtime.attach(id), b"")  # which ends its input
            assert (await runtime.wait(id)).code == 0
            async with asyncio.timeout(1):
                assert (await waiting).code != 0

    @case
    async def test_stopping_is_not_held_up_by_execs(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = [await runtime.exec(id, self.process(kit, "ignore"), attach=False) for _ in range(3)]
            waiting = [asyncio.create_task(runtime.start_exec(id, one.id)) for one in made]
            await asyncio.wait(waiting, timeout=0.2)
            began = time.monotonic()
            await runtime.signal(id, signal.SIGKILL)
            assert (await runtime.wait(id)).signal == signal.SIGKILL
            assert time.monotonic() - began < 1
            assert all(status.code != 0 for status in await asyncio.gather(*waiting))
