"""How a process ends, and that everybody who asks is told the truth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.runtime.spec import Limits
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, needs, said

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


class Endings(Cases):
    @pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 255])
    @case
    async def test_exit_code_is_the_process_own(self, kit: Kit, code: int) -> None:
        status = (await self.run(kit.make(), self.spec(kit, "exit", str(code)))).status
        assert (status.cause, status.code, status.signal) == ("exited", code, None)
        assert status.shell_code == code

    @case
    async def test_the_end_has_its_time(self, kit: Kit) -> None:
        before = time.time()
        status = (await self.run(kit.make(), self.spec(kit, "exit", "0"))).status
        assert status.finished_at is not None
        assert before - 1 <= status.finished_at <= time.time() + 1

    @case
    async def test_kill_is_told_from_an_exit(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.signal(id, signal.SIGKILL)
            status = await runtime.wait(id)
        assert (status.cause, status.code, status.signal) == ("signaled", None, signal.SIGKILL)
        assert status.shell_code == 137

    @pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "QUIT"])
    @case
    async def test_a_process_may_handle_a_signal(self, kit: Kit, name: str) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "trap", name, "9")) as id:
            await self.logged(runtime, id, "ready")
            await runtime.signal(id, signal.Signals[f"SIG{name}"])
            status = await runtime.wait(id)
        assert (status.cause, status.code) == ("exited", 9)

    @case
    async def test_a_process_may_ignore_a_signal_but_not_kill(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "ignore")) as id:
            await self.logged(runtime, id, "ready")
            await runtime.signal(id, signal.SIGTERM)
            waiting = asyncio.create_task(runtime.wait(id))
            await asyncio.wait([waiting], timeout=0.2)
            assert await self.state(runtime, id) is SandboxState.RUNNING
            await runtime.signal(id, signal.SIGKILL)
            assert (await waiting).signal == signal.SIGKILL

    @case
    async def test_everyone_is_everyone(self, kit: Kit) -> None:
        """A signal to all reaches what was started beside the entrypoint."""
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "ignore")) as id:
            await self.logged(runtime, id, "ready")
            made = await runtime.exec(id, self.process(kit, "trap", "TERM", "8"), attach=True)
            assert made.stdio is not None
            ended = asyncio.create_task(runtime.start_exec(id, made.id))
            await said(made.stdio, b"ready\n")
            os.close(made.stdio.socket)
            await runtime.signal(id, signal.SIGTERM, everyone=True)
            assert (await ended).code == 8
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @case
    async def test_a_created_sandbox_can_be_killed(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            await runtime.signal(id, signal.SIGKILL)
            status = await runtime.wait(id)
            assert status.code != 0
            assert await self.state(runtime, id) is SandboxState.STOPPED

    @case
    async def test_another_signal_to_a_created_sandbox_does_not_start_it(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "exit", "5")) as id:
            await runtime.signal(id, signal.SIGUSR1)
            assert await self.state(runtime, id) is SandboxState.CREATED
            await runtime.start(id)
            assert (await runtime.wait(id)).code == 5

    @case
    async def test_signal_to_a_stopped_sandbox_has_no_effect(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "exit", "4")) as id:
            await runtime.wait(id)
            await runtime.signal(id, signal.SIGTERM)
            await runtime.signal(id, signal.SIGKILL, everyone=True)
            assert (await runtime.wait(id)).code == 4

    @case
    async def test_wait_answers_everybody_and_again_afterwards(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "exit", "3")) as id:
            early = [asyncio.create_task(runtime.wait(id)) for _ in range(20)]
            await asyncio.sleep(0)
            await runtime.start(id)
            answers = [*await asyncio.gather(*early), await runtime.wait(id)]
        assert len(answers) == 21
        assert len(set(map(repr, answers))) == 1
        assert answers[0].code == 3

    @case
    async def test_cancelled_wait_changes_nothing(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            other = asyncio.create_task(runtime.wait(id))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await runtime.wait(id)
            assert await self.state(runtime, id) is SandboxState.RUNNING
            await runtime.signal(id, signal.SIGKILL)
            assert (await other).signal == signal.SIGKILL
            assert (await runtime.wait(id)).signal == signal.SIGKILL

    @needs("limits")
    @case
    async def test_out_of_memory_is_the_cause(self, kit: Kit) -> None:
        spec = replace(self.spec(kit, "hog"), limits=Limits(memory=24 << 20))
        status = (await self.run(kit.make(), spec)).status
        assert (status.cause, status.code, status.signal) == ("oom", None, signal.SIGKILL)
        assert status.shell_code == 137

    @needs("limits")
    @case
    async def test_a_kill_under_a_limit_is_not_out_of_memory(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(
            runtime, replace(self.spec(kit, "sleep"), limits=Limits(memory=64 << 20))
        ) as id:
            await runtime.signal(id, signal.SIGKILL)
            assert (await runtime.wait(id)).cause == "signaled"

    @needs("stats")
    @case
    async def test_the_end_has_what_was_used(self, kit: Kit) -> None:
        usage = (await self.run(kit.make(), self.spec(kit, "lines", "100"))).status.usage
        assert usage.cpu_seconds is not None and usage.cpu_seconds >= 0
        assert usage.memory_peak_bytes is not None
