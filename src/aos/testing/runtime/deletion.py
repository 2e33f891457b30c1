"""Deleting: of everything, at any time, by anybody, twice."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from aos.errors import AosError, FailedPrecondition, NotFound
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


class Deletion(Cases):
    @case
    async def test_delete_refuses_what_runs_unless_forced(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.delete(id)
            assert refused.value.code == "sandbox-state"
            assert await self.state(runtime, id) is SandboxState.RUNNING
            await runtime.delete(id, force=True)
            assert id not in await self.ids(runtime)

    @pytest.mark.parametrize("force", [False, True])
    @case
    async def test_delete_of_nothing_has_no_effect(self, kit: Kit, force: bool) -> None:
        await kit.make().delete(self.id(), force=force)

    @case
    async def test_delete_of_a_created_sandbox_needs_no_force(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            await runtime.delete(id)
            assert await runtime.list() == []

    @case
    async def test_delete_of_a_stopped_sandbox_needs_no_force_and_no_second_one(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "exit", "0")) as id:
            await runtime.wait(id)
            await runtime.delete(id)
            await runtime.delete(id)
            assert await runtime.list() == []

    @case
    async def test_what_was_deleted_is_unknown(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "exit", "0")) as id:
            await runtime.wait(id)
            await runtime.delete(id)
            for call in (runtime.wait, runtime.start, runtime.logs, runtime.stats, runtime.attach):
                with pytest.raises(NotFound) as refused:
                    await call(id)
                assert refused.value.code == "sandbox-not-found"

    @pytest.mark.parametrize("times", [2, 5])
    @case
    async def test_deletes_at_once_are_one(self, kit: Kit, times: int) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await asyncio.gather(*(runtime.delete(id, force=True) for _ in range(times)))
            assert await runtime.list() == []

    @case
    async def test_deletes_of_two_instances_at_once_are_one(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await asyncio.gather(runtime.delete(id, force=True), kit.make().delete(id, force=True))
            assert await runtime.list() == []

    @pytest.mark.parametrize("delay", [0.0, 0.003])
    @case
    async def test_delete_while_it_starts(self, kit: Kit, delay: float) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            starting = asyncio.create_task(runtime.start(id))
            await asyncio.wait([starting], timeout=delay)
            await runtime.delete(id, force=True)
            try:
                await starting
            except AosError as error:
                assert error.code in ("sandbox-state", "sandbox-not-found", "runtime-failed"), error.code
            assert await runtime.list() == []

    @pytest.mark.parametrize("delay", [0.0, 0.001, 0.004, 0.008, 0.015])
    @case
    async def test_delete_while_it_is_made(self, kit: Kit, delay: float) -> None:
        runtime, id = kit.make(), self.id()
        making = asyncio.create_task(runtime.create(id, self.spec(kit, "sleep")))
        await asyncio.sleep(delay)
        await runtime.delete(id, force=True)
        try:
            await making
        except AosError as error:
            assert error.code in ("sandbox-state", "sandbox-not-found", "runtime-failed"), error.code
        await runtime.delete(id, force=True)
        assert await runtime.list() == []

    @case
    async def test_delete_answers_those_who_wait(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            waiting = [asyncio.create_task(runtime.wait(id)) for _ in range(2)]
            await asyncio.sleep(0)
            await runtime.delete(id, force=True)
            async with asyncio.timeout(1):
                for status in await asyncio.gather(*waiting):
                    assert (status.signal == signal.SIGKILL) or status.cause == "lost", status

    @case
    async def test_delete_of_one_that_never_ran_answers_those_who_wait(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            waiting = asyncio.create_task(runtime.wait(id))
            await asyncio.sleep(0)
            await runtime.delete(id)
            async with asyncio.timeout(1):
                assert (await waiting).code != 0

    @case
    async def test_delete_while_an_exec_runs(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "ignore"), attach=False)
            ended = asyncio.create_task(runtime.start_exec(id, made.id))
            await asyncio.wait([ended], timeout=0.2)
            assert not ended.done()
            await runtime.delete(id, force=True)
            async with asyncio.timeout(1):
                assert (await ended).code != 0
            assert await runtime.list() == []

    @case
    async def test_delete_while_an_exec_waits_for_its_start(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "exit", "0"), attach=False)
            await runtime.delete(id, force=True)
            async with asyncio.timeout(1):
                try:
                    assert (await runtime.start_exec(id, made.id)).code != 0
                except AosError as error:
                    assert error.code in ("sandbox-not-found", "exec-not-found", "sandbox-state"), error

    @case
    async def test_a_cancelled_delete_can_be_repeated(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            deleting = asyncio.create_task(runtime.delete(id, force=True))
            await asyncio.sleep(0)
            deleting.cancel()
            await asyncio.wait([deleting])
            await runtime.delete(id, force=True)
            assert await runtime.list() == []
