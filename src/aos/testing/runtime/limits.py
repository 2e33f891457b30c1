"""Limits and accounts. (Running out of memory is in endings.py.)"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.errors import InvalidArgument
from aos.runtime.spec import Limits
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit

_FORKS = "n=0; while [ $n -lt 50 ]; do sleep 5 & n=$((n+1)); echo $n; done"


class LimitsHold(Cases):
    @needs("stats")
    @pytest.mark.parametrize("state", ["created", "running", "stopped"])
    @case
    async def test_figures_in_every_state(self, kit: Kit, state: str) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            if state != "created":
                await runtime.start(id)
            if state == "stopped":
                await runtime.signal(id, signal.SIGKILL)
                await runtime.wait(id)
            usage = await runtime.stats(id)
            assert usage.cpu_seconds is not None and usage.cpu_seconds >= 0
            assert usage.memory_peak_bytes is not None and usage.memory_peak_bytes >= 0

    @needs("stats", "files")
    @case
    async def test_figures_grow_with_what_is_used(self, kit: Kit) -> None:
        runtime = kit.make()
        script = "n=0; while [ $n -lt 50000 ]; do n=$((n+1)); done; echo used; exec sleep 1000"
        async with self.created(runtime, self.spec(kit, "sh", script)) as id:
            before = (await runtime.stats(id)).cpu_seconds
            await runtime.start(id)
            await self.logged(runtime, id, "used")
            after = (await runtime.stats(id)).cpu_seconds
            assert before is not None and after is not None
            assert after > before

    @needs("update")
    @case
    async def test_limits_can_be_changed(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            for limits in (
                Limits(memory=64 << 20, cpus=0.5),
                Limits(memory=32 << 20),
                Limits(memory=128 << 20, cpus=2.0),
                Limits(),
            ):
                await runtime.update(id, limits)

    @needs("update")
    @case
    async def test_limits_can_be_changed_before_it_runs(self, kit: Kit) -> None:
        runtime = kit.make()
        spec = replace(self.spec(kit, "hog"), limits=Limits(memory=256 << 20))
        async with self.created(runtime, spec) as id:
            await runtime.update(id, Limits(memory=24 << 20))
            await runtime.start(id)
            status = await runtime.wait(id)
            assert status.cause == "oom"
            peak = status.usage.memory_peak_bytes
            assert peak is not None and peak <= 24 << 20

    @needs("update")
    @pytest.mark.parametrize("limits", [Limits(memory=-5), Limits(cpus=0.0), Limits(pids=-1)], ids=repr)
    @case
    async def test_changes_that_cannot_be(self, kit: Kit, limits: Limits) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(InvalidArgument):
                await runtime.update(id, limits)

    @needs("update", "files")
    @case
    async def test_a_changed_limit_holds_for_what_runs(self, kit: Kit) -> None:
        """Though the kernel may choose whom it ends: the entrypoint is its last choice."""
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.update(id, Limits(memory=24 << 20))
            made = await runtime.exec(id, self.process(kit, "hog"), attach=False)
            status = await runtime.start_exec(id, made.id)
            assert status.code != 0

    @needs("limits", "files")
    @case
    async def test_processes_are_limited(self, kit: Kit) -> None:
        spec = replace(self.spec(kit, "sh", _FORKS), limits=Limits(pids=8))
        run = await self.run(kit.make(), spec)
        assert int(run.out.split()[-1]) <= 8
        assert run.err, "nobody said that there could be no more"

    @needs("update-pids", "files")
    @case
    async def test_the_number_of_processes_can_be_changed(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.update(id, Limits(pids=16))  # the threads of an OCI runtime's init count, too
            run = await self.execute(runtime, id, self.process(kit, "sh", _FORKS))
            assert not run.out or int(run.out.split()[-1]) <= 16

    @needs("limits", "files")
    @case
    async def test_cpu_is_limited(self, kit: Kit) -> None:
        """A fifth of a CPU for half a second is a tenth of a second."""
        runtime = kit.make()
        spec = replace(self.spec(kit, "sh", "while :; do :; done"), limits=Limits(cpus=0.2))
        async with self.running(runtime, spec) as id:
            began = await runtime.stats(id)
            await asyncio.sleep(0.5)
            ended = await runtime.stats(id)
            assert began.cpu_seconds is not None and ended.cpu_seconds is not None
            assert ended.cpu_seconds - began.cpu_seconds < 0.35

    @needs("top")
    @case
    async def test_the_entrypoint_is_the_first_process(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            while "sleep" not in (found := await runtime.processes(id))[0].command:
                await asyncio.sleep(0.01)  # it was let go, and has not executed yet
            assert found[0].pid == 1 and found[0].user == "0"

    @needs("top", "files")
    @case
    async def test_all_processes_are_told(self, kit: Kit) -> None:
        runtime = kit.make()
        script = "sleep 1000 & echo ready; exec sleep 2000"
        async with self.running(runtime, self.spec(kit, "sh", script, user="1000")) as id:
            await self.logged(runtime, id, "ready")
            found = await runtime.processes(id)
            assert {one.user for one in found} == {"1000"}
            assert [one.ppid for one in found] == [0, 1]
            assert all((one.cpu_seconds or 0) >= 0 and (one.memory_bytes or 0) >= 0 for one in found)
