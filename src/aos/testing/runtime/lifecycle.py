"""The life of a sandbox: its states, and calls in every order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

from aos.errors import AlreadyExists, AosError, FailedPrecondition
from aos.runtime.spec import Limits, ProcessSpec
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from aos.ids import SandboxId
    from aos.runtime.protocol import Runtime
    from aos.testing.runtime.kit import Kit


class Lifecycle(Cases):
    @case
    async def test_lifecycle_passes_through_its_states(self, kit: Kit) -> None:
        runtime, id = kit.make(), self.id()
        made = await runtime.create(id, self.spec(kit, "sleep"))
        assert (made.id, made.state) == (id, SandboxState.CREATED)
        assert made.pid is not None
        assert await self.state(runtime, id) is SandboxState.CREATED
        await runtime.start(id)
        assert await self.state(runtime, id) is SandboxState.RUNNING
        await runtime.signal(id, signal.SIGKILL)
        await runtime.wait(id)
        assert await self.state(runtime, id) is SandboxState.STOPPED
        await runtime.delete(id)
        assert id not in await self.ids(runtime)

    @case
    async def test_nothing_runs_before_start(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "print", "said", "")) as id:
            waiting = asyncio.create_task(runtime.wait(id))
            await asyncio.wait([waiting], timeout=0.2)
            assert not waiting.done()
            assert (await runtime.logs(id)).read_text() == ""
            await runtime.start(id)
            assert (await waiting).code == 0

    @case
    async def test_list_tells_pid_and_exit(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            [found] = await runtime.list()
            assert found.pid is not None and found.exit is None
            await runtime.signal(id, signal.SIGKILL)
            await runtime.wait(id)
            [found] = await runtime.list()
            assert found.pid is None and found.exit is not None
            assert found.exit.signal == signal.SIGKILL

    @case
    async def test_sandboxes_in_all_states_are_listed(self, kit: Kit) -> None:
        runtime = kit.make()
        async with (
            self.created(runtime, self.spec(kit, "sleep")) as waiting,
            self.running(runtime, self.spec(kit, "sleep")) as going,
            self.running(runtime, self.spec(kit, "exit", "0")) as ended,
        ):
            await runtime.wait(ended)
            assert {sandbox.id: sandbox.state for sandbox in await runtime.list()} == {
                waiting: SandboxState.CREATED,
                going: SandboxState.RUNNING,
                ended: SandboxState.STOPPED,
            }
        assert await runtime.list() == []

    @pytest.mark.parametrize("state", ["created", "running", "stopped"])
    @case
    async def test_create_refuses_an_id_in_use(self, kit: Kit, state: str) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            await self._bring(runtime, id, state)
            with pytest.raises(AlreadyExists) as refused:
                await runtime.create(id, self.spec(kit, "sleep"))
            assert refused.value.code == "sandbox-exists"
            assert (await self.state(runtime, id)).value == state

    @case
    async def test_of_two_creations_of_an_id_one_wins(self, kit: Kit) -> None:
        runtime, id = kit.make(), self.id()
        spec = self.spec(kit, "exit", "6")
        try:
            results = await asyncio.gather(
                runtime.create(id, spec), runtime.create(id, spec), return_exceptions=True
            )
            [refused] = [result for result in results if isinstance(result, BaseException)]
            assert isinstance(refused, AlreadyExists), refused
            await runtime.start(id)
            assert (await runtime.wait(id)).code == 6
        finally:
            await runtime.delete(id, force=True)

    @case
    async def test_an_id_can_be_used_again(self, kit: Kit) -> None:
        runtime, id = kit.make(), self.id()
        for code in (1, 2, 3):
            await runtime.create(id, self.spec(kit, "exit", str(code)))
            await runtime.start(id)
            assert (await runtime.wait(id)).code == code
            await runtime.delete(id)

    @case
    async def test_of_two_starts_one_wins(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            results = await asyncio.gather(runtime.start(id), runtime.start(id), return_exceptions=True)
            refused = [result for result in results if result is not None]
            assert len(refused) == 1, results
            assert isinstance(refused[0], FailedPrecondition) and refused[0].code == "sandbox-state"
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.03])
    @case
    async def test_a_cancelled_creation_leaves_the_state_before_or_after(
        self, kit: Kit, delay: float
    ) -> None:
        runtime, id = kit.make(), self.id()
        making = asyncio.create_task(runtime.create(id, self.spec(kit, "exit", "3")))
        await asyncio.wait([making], timeout=delay)
        making.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await making
        try:
            if await self.ids(runtime):
                assert await self.state(runtime, id) is SandboxState.CREATED
            else:
                await runtime.create(id, self.spec(kit, "exit", "3"))
            await runtime.start(id)
            assert (await runtime.wait(id)).code == 3
        finally:
            await runtime.delete(id, force=True)

    @pytest.mark.parametrize("delay", [0.0, 0.001, 0.005])
    @case
    async def test_a_cancelled_start_leaves_the_state_before_or_after(self, kit: Kit, delay: float) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            starting = asyncio.create_task(runtime.start(id))
            await asyncio.wait([starting], timeout=delay)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            if await self.state(runtime, id) is SandboxState.CREATED:
                with contextlib.suppress(FailedPrecondition):  # what was let go needs a moment to be seen
                    await runtime.start(id)
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @pytest.mark.parametrize(
        ("state", "call"),
        [
            ("created", "pause"),
            ("created", "resume"),
            ("running", "start"),
            ("running", "resume"),
            ("running", "delete"),
            ("stopped", "start"),
            ("stopped", "pause"),
            ("stopped", "resume"),
            ("stopped", "update"),
            ("stopped", "attach"),
            ("stopped", "exec"),
            ("stopped", "processes"),
            ("stopped", "root"),
        ],
    )
    @case
    async def test_a_call_in_the_wrong_state_is_refused(self, kit: Kit, state: str, call: str) -> None:
        runtime = kit.make()
        capability = {"resume": "pause", "processes": "top", "root": "copy"}.get(call, call)
        if capability in ("pause", "update", "top", "copy"):
            self.applicable(capability)
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            await self._bring(runtime, id, state)
            with pytest.raises(FailedPrecondition) as refused:
                await self._call(runtime, id, call)
            assert refused.value.code == "sandbox-state"
            assert state in refused.value.message and id in refused.value.message
            assert (await self.state(runtime, id)).value == state

    @needs("pause")
    @pytest.mark.parametrize("call", ["start", "pause", "exec", "delete"])
    @case
    async def test_a_call_is_refused_while_it_is_paused(self, kit: Kit, call: str) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.pause(id)
            with pytest.raises(FailedPrecondition) as refused:
                await self._call(runtime, id, call)
            assert refused.value.code == "sandbox-state" and "paused" in refused.value.message
            assert await self.state(runtime, id) is SandboxState.PAUSED

    @case
    async def test_a_stopped_sandbox_tells_all_that_it_left(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "print", "last", "words")) as id:
            await runtime.wait(id)
            await runtime.stats(id)
            assert "last" in (await runtime.logs(id)).read_text()
            with contextlib.suppress(AosError):
                await runtime.start(id)
            assert (await runtime.wait(id)).code == 0

    async def _bring(self, runtime: Runtime, id: SandboxId, state: str) -> None:
        if state != "created":
            await runtime.start(id)
        if state == "stopped":
            await runtime.signal(id, signal.SIGKILL)
            await runtime.wait(id)

    async def _call(self, runtime: Runtime, id: SandboxId, call: str) -> None:
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "update": lambda: runtime.update(id, Limits(memory=64 << 20)),
            "exec": lambda: runtime.exec(id, ProcessSpec(("x",)), attach=False),
        }
        await (calls.get(call) or (lambda: getattr(runtime, call)(id)))()
