"""Another instance, as after the death of a daemon: it sees, waits for and manages what the one before it made."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.errors import AlreadyExists
from aos.runtime.spec import Limits
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, collect, needs, said

if TYPE_CHECKING:
    from aos.ids import SandboxId
    from aos.runtime.spec import AgentSpec
    from aos.testing.runtime.kit import Kit


class Adoption(Cases):
    async def orphan(self, kit: Kit, spec: AgentSpec, *, start: bool = True) -> SandboxId:
        """A sandbox whose maker is gone. Whoever calls deletes it."""
        maker, id = kit.make(), self.id()
        await maker.create(id, spec)
        if start:
            await maker.start(id)
        del maker
        gc.collect()
        return id

    @case
    async def test_another_instance_sees_and_waits(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "sleep")) as id:
            second = kit.make()
            assert await self.state(second, id) is SandboxState.RUNNING
            waiting = [asyncio.create_task(one.wait(id)) for one in (first, second)]
            await asyncio.sleep(0)
            await second.signal(id, signal.SIGKILL)
            assert {status.signal for status in await asyncio.gather(*waiting)} == {signal.SIGKILL}

    @pytest.mark.parametrize("state", ["created", "running", "paused", "stopped"])
    @case
    async def test_another_instance_lists_the_same(self, kit: Kit, state: str) -> None:
        if state == "paused":
            self.applicable("pause")
        first = kit.make()
        async with self.created(first, self.spec(kit, "sleep")) as id:
            if state != "created":
                await first.start(id)
            if state == "paused":
                await first.pause(id)
            if state == "stopped":
                await first.signal(id, signal.SIGKILL)
                await first.wait(id)
            assert await kit.make().list() == await first.list()
            assert (await self.state(kit.make(), id)).value == state

    @case
    async def test_another_instance_knows_whose_user_ids_it_has(self, kit: Kit) -> None:
        first, id = kit.make(), self.id()
        made = await first.create(id, self.spec(kit, "sleep"))
        try:
            assert [one.users for one in await kit.make().list() if one.id == id] == [made.users]
        finally:
            await first.delete(id, force=True)

    @case
    async def test_another_instance_starts_what_was_made(self, kit: Kit) -> None:
        id = await self.orphan(kit, self.spec(kit, "exit", "11"), start=False)
        second = kit.make()
        try:
            assert await self.state(second, id) is SandboxState.CREATED
            await second.start(id)
            assert (await second.wait(id)).code == 11
        finally:
            await second.delete(id, force=True)

    @case
    async def test_another_instance_knows_an_exit_that_it_did_not_see(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "exit", "42")) as id:
            await first.wait(id)
            second = kit.make()
            [found] = [sandbox for sandbox in await second.list() if sandbox.id == id]
            assert found.state is SandboxState.STOPPED
            assert found.exit is not None and found.exit.code == 42
            assert (await second.wait(id)).code == 42

    @case
    async def test_an_exit_that_nobody_saw_is_known(self, kit: Kit) -> None:
        id = await self.orphan(kit, self.spec(kit, "exit", "43"))
        await asyncio.sleep(0.3)
        second = kit.make()
        try:
            assert (await second.wait(id)).code == 43
        finally:
            await second.delete(id, force=True)

    @case
    async def test_a_death_that_nobody_saw_is_known(self, kit: Kit) -> None:
        maker = kit.make()
        async with self.running(maker, self.spec(kit, "sleep")) as id:
            await maker.signal(id, signal.SIGKILL)
            status = await kit.make().wait(id)
            assert (status.cause, status.signal) == ("signaled", signal.SIGKILL)

    @case
    async def test_another_instance_refuses_the_id(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "sleep")) as id:
            with pytest.raises(AlreadyExists):
                await kit.make().create(id, self.spec(kit, "sleep"))
            assert await self.state(first, id) is SandboxState.RUNNING

    @case
    async def test_another_instance_executes_and_tells(self, kit: Kit) -> None:
        id = await self.orphan(kit, self.spec(kit, "count"))
        second = kit.make()
        try:
            await self.counted(second, id, 1)
            run = await self.execute(second, id, self.process(kit, "cat", stdin=True), b"here\n")
            assert (run.status.code, run.out) == (0, b"here\n")
            await second.stats(id)
        finally:
            await second.delete(id, force=True)

    @case
    async def test_another_instance_attaches(self, kit: Kit) -> None:
        spec = replace(self.spec(kit, "cat", stdin=True), leave_stdin_open=True)
        id = await self.orphan(kit, spec)
        second = kit.make()
        try:
            stdio = await second.attach(id)
            os.write(stdio.socket, b"word\n")
            assert await said(stdio, b"word\n") == b"word\n"
            await second.signal(id, signal.SIGKILL)
            await collect(stdio)
        finally:
            await second.delete(id, force=True)

    @needs("pause", "update")
    @case
    async def test_another_instance_pauses_and_limits(self, kit: Kit) -> None:
        id = await self.orphan(kit, self.spec(kit, "sleep"))
        second = kit.make()
        try:
            await second.pause(id)
            third = kit.make()
            assert await self.state(third, id) is SandboxState.PAUSED
            await third.resume(id)
            await third.update(id, Limits(memory=64 << 20))
            assert await self.state(second, id) is SandboxState.RUNNING
        finally:
            await second.delete(id, force=True)

    @case
    async def test_another_instance_deletes_and_the_first_is_told(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "sleep")) as id:
            waiting = asyncio.create_task(first.wait(id))
            await asyncio.sleep(0)
            await kit.make().delete(id, force=True)
            assert await first.list() == []
            async with asyncio.timeout(2):
                assert (await waiting).code is None

    @case
    async def test_an_exec_of_a_daemon_that_died_harms_nothing(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "sleep")) as id:
            made = await first.exec(id, self.process(kit, "sleep"), attach=False)
            waiting = asyncio.create_task(first.start_exec(id, made.id))
            await asyncio.wait([waiting], timeout=0.1)
            second = kit.make()
            assert (await self.execute(second, id, self.process(kit, "exit", "5"))).status.code == 5
            await second.delete(id, force=True)
            async with asyncio.timeout(1):
                assert (await waiting).code != 0
