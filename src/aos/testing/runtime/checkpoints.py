"""Checkpoints of processes: an image holds what they are, as often as somebody wants it."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from aos.errors import AosError, FailedPrecondition
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from pathlib import Path

    from aos.runtime.protocol import Runtime
    from aos.runtime.spec import AgentSpec
    from aos.testing.runtime.kit import Kit


@needs("checkpoint", "restore")
class Checkpoints(Cases):
    @case
    async def test_restored_processes_go_on_where_they_were(self, kit: Kit, tmp_path: Path) -> None:
        """One image, three sandboxes at once, while the one it was made of goes on."""

        async def restored(runtime: Runtime, spec: AgentSpec) -> list[int]:
            id = self.id()
            made = await runtime.restore(id, spec, tmp_path / "image")
            try:
                assert made.state is SandboxState.CREATED
                await runtime.start(id)
                assert await self.state(runtime, id) is SandboxState.RUNNING
                numbers = await self.counted(runtime, id)
                await runtime.signal(id, signal.SIGKILL)
                assert (await runtime.wait(id)).signal == signal.SIGKILL
                return numbers
            finally:
                await runtime.delete(id, force=True)

        runtime = kit.make()
        spec = self.spec(kit, "count")
        async with self.running(runtime, spec) as id:
            before = (await self.counted(runtime, id, 5))[-1]
            await runtime.checkpoint(id, tmp_path / "image", leave_running=True)
            at_most = (await self.counted(runtime, id, before + 1))[-1]
            found = await asyncio.gather(*(restored(runtime, spec) for _ in range(3)))
            for numbers in found:
                assert before < numbers[0] <= at_most + 1
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert (await self.counted(runtime, id, at_most))[0] == 1

    @case
    async def test_a_checkpoint_ends_the_sandbox_unless_it_is_left_running(
        self, kit: Kit, tmp_path: Path
    ) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "count")) as id:
            await self.counted(runtime, id)
            await runtime.checkpoint(id, tmp_path / "image")
            await runtime.wait(id)
            assert await self.state(runtime, id) is SandboxState.STOPPED
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.checkpoint(id, tmp_path / "again")
            assert refused.value.code == "sandbox-state"

    @case
    async def test_a_paused_sandbox_stays_paused_when_it_is_checkpointed(
        self, kit: Kit, tmp_path: Path
    ) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "count")) as id:
            await self.counted(runtime, id)
            await runtime.pause(id)
            await runtime.checkpoint(id, tmp_path / "image", leave_running=True)
            assert await self.state(runtime, id) is SandboxState.PAUSED
            last = (await self.counted(runtime, id))[-1]
            await runtime.resume(id)
            assert (await self.counted(runtime, id, last))[-1] > last

    @case
    async def test_what_is_no_image_is_refused(self, kit: Kit, tmp_path: Path) -> None:
        runtime = kit.make()
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged/checkpoint.img").write_bytes(b"nothing of use")
        for image in (tmp_path / "missing", tmp_path / "damaged"):
            id = self.id()
            try:
                with pytest.raises(AosError) as refused:
                    await runtime.restore(id, self.spec(kit, "count"), image)
                    await runtime.start(id)
            finally:
                await runtime.delete(id, force=True)
            assert refused.value.code == "checkpoint-invalid", refused.value
        assert await runtime.list() == []
