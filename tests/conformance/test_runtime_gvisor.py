"""The gvisor backend passes the suite of every backend; and what a kernel of its own adds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.compose.runtimes import bridge_network
from aos.errors import AosError
from aos.runtime.backends.gvisor import Runsc
from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
from aos.runtime.cgroups import detect_cgroups, kill_all
from aos.runtime.spec import Limits
from aos.runtime.state import SandboxState
from aos.testing.runtime import case
from damage_cases import DamageCases
from fix_installation import requires

if TYPE_CHECKING:
    from supervised_cases import SupervisedKit

pytestmark = [pytest.mark.root, pytest.mark.backends]


class TestRunsc(DamageCases):
    @pytest.fixture(scope="class")
    @classmethod
    def tool(cls) -> Runsc:
        requires("runsc")
        return Runsc()

    @case
    async def test_signals_of_a_pause_arrive_though_its_end_was_interrupted(self, kit: SupervisedKit) -> None:
        """The daemon is killed when it has resumed, before it could deliver; the next one finds what is left."""
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "trap", "TERM", "7")) as id:
            await self.logged(runtime, id, "ready")
            await runtime.pause(id)
            await runtime.signal(id, signal.SIGTERM)
            options = ["--root", str(kit.config.state / "runtime" / "gvisor"), "--ignore-cgroups"]
            subprocess.run([kit.tool.find(), *options, "resume", id], check=True)
            assert await self.state(kit.make(), id) is SandboxState.RUNNING
            assert (await runtime.wait(id)).code == 7

    @case
    async def test_a_bound_on_the_host_holds_the_tasks_of_all_users(self, kit: SupervisedKit) -> None:
        """The limit inside is for each user; who is many users meets the group's."""
        limits = Limits(pids=4)
        async with self.running(kit.make(), replace(self.spec(kit, "sleep"), limits=limits)) as id:
            own = f"{kit.config.installation}/{id}/pids.max"
            [bound] = [int(path.read_text()) for path in Path("/sys/fs/cgroup").glob(f"*/{own}")]
            assert 4 < bound < 10_000

    def test_whoever_starts_a_sandbox_is_none_of_its_processes(self, kit: SupervisedKit) -> None:
        """Of version 1 a thread of ours is in the group while it starts conmon: it is not killed with the group."""
        cgroups, group = detect_cgroups(), f"{kit.config.installation}/started"
        cgroups.create(group, Limits())
        seen: list[int] = []

        def spawn() -> int:
            process = subprocess.Popen(["sleep", "1000"])
            seen.extend(cgroups.pids(group))
            children.append(process)
            return process.pid

        children: list[subprocess.Popen[bytes]] = []
        starting = threading.Thread(target=cgroups.spawn_inside, args=(group, spawn))
        starting.start()
        starting.join()
        assert os.getpid() not in seen
        kill_all(cgroups, group)
        [child] = children
        assert child.wait(10) == -signal.SIGKILL
        while not cgroups.remove(group):
            time.sleep(0.01)
        cgroups.remove_empty(kit.config.installation)

    @case
    async def test_a_call_that_ends_after_the_deletion_leaves_nothing(
        self, kit: SupervisedKit, tmp_path: Path
    ) -> None:
        """Each call of runsc makes a lock of its container's name, also of one that is gone."""
        script = tmp_path / "runsc"
        script.write_text(
            "#!/bin/sh\n"
            f'for word; do [ "$word" != start ] || {{ : > {tmp_path}/begun; lock=$2/$(ls $2 | grep "[.]lock$" | head -1);'
            f"until test -e {tmp_path}/deleted; do sleep 0.01; done; : > $lock; }}; done\n"
            f'exec {kit.tool.find()} "$@"\n'
        )
        script.chmod(0o755)
        config = SupervisedConfig(kit.config.root, kit.config.state, kit.config.installation)
        runtime = SupervisedRuntime(config, Runsc(str(script)), kit.content, bridge_network(kit.config))
        id = self.id()
        await runtime.create(id, self.spec(kit, "sleep"))
        starting = asyncio.create_task(runtime.start(id))
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.01)
        await kit.make().delete(id, force=True)
        (tmp_path / "deleted").touch()
        with pytest.raises(AosError):
            await starting
