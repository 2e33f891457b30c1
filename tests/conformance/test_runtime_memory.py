"""The memory backend passes the suite of every backend, and injects the faults it is asked for."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from aos.errors import ResourceExhausted
from aos.ids import SandboxId
from aos.runtime.spec import AgentSpec, ProcessSpec, Rootfs
from aos.testing.runtime import RuntimeConformance
from memory_kit import MemoryKit

if TYPE_CHECKING:
    from collections.abc import Iterator


class TestMemory(RuntimeConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def kit(cls, tmp_path_factory: pytest.TempPathFactory) -> MemoryKit:
        return MemoryKit(tmp_path_factory.mktemp("memory"))

    @pytest.fixture(autouse=True)
    def nothing_is_left_to_the_next_case(self, kit: MemoryKit) -> Iterator[None]:
        """A world is bound to the event loop that it was made in."""
        yield
        assert kit.world == {}

    def test_faults_are_raised_once(self, kit: MemoryKit) -> None:
        async def go() -> None:
            runtime, id = kit.make(), SandboxId("a")
            runtime.faults["create"] = ResourceExhausted("no space", code="disk-full")
            spec = AgentSpec(ProcessSpec(("exit", "5")), Rootfs(()))
            with pytest.raises(ResourceExhausted):
                await runtime.create(id, spec)
            assert await runtime.list() == []
            await runtime.create(id, spec)
            await runtime.start(id)
            assert (await runtime.wait(id)).code == 5
            await runtime.delete(id)

        asyncio.run(go())

    def test_the_same_commands_have_the_same_answers(self, kit: MemoryKit) -> None:
        """Deterministic: nothing depends on time, or on which of two tasks comes first."""

        async def go() -> list[object]:
            runtime, id = kit.make(), SandboxId("a")
            await runtime.create(id, AgentSpec(ProcessSpec(("trap", "TERM", "9")), Rootfs(())))
            await runtime.start(id)
            await asyncio.sleep(0)
            await runtime.pause(id)
            await runtime.signal(id, signal.SIGTERM)
            states = [sandbox.state for sandbox in await runtime.list()]
            await runtime.resume(id)
            status = await runtime.wait(id)
            log = [line.split(" ", 1)[1] for line in (await runtime.logs(id)).read_text().splitlines()]
            await runtime.delete(id)
            return [states, status.cause, status.code, log]

        answers = [asyncio.run(go()) for _ in range(20)]
        assert all(answer == answers[0] for answer in answers), answers
