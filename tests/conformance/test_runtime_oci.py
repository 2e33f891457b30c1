"""The oci backend passes the suite of every backend; and what is true of namespaces alone."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.runtime.backends.oci import Runc
from aos.runtime.spec import NetworkSpec
from aos.runtime.state import SandboxState
from aos.testing.runtime import case
from damage_cases import DamageCases
from device_cases import DeviceCases
from fix_installation import crun_of_this_host

if TYPE_CHECKING:
    from supervised_cases import SupervisedKit

pytestmark = pytest.mark.root


class TestRunc(DamageCases, DeviceCases):
    @pytest.fixture(scope="class")
    @classmethod
    def tool(cls) -> Runc:
        return Runc("runc")

    @case
    async def test_isolation_defaults(self, kit: SupervisedKit) -> None:
        status = await self.says(kit, self.shell(kit, "cat /proc/self/status"))
        fields = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
        assert fields["NoNewPrivs"] == "1"
        assert fields["Seccomp"] == "2"
        assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0x800405FB
        assert "CapInh" not in fields or int(fields["CapInh"], 16) == 0

    @case
    async def test_host_network_is_the_hosts(self, kit: SupervisedKit) -> None:
        spec = replace(self.shell(kit, "readlink /proc/self/ns/net"), network=NetworkSpec("host"))
        assert (await self.says(kit, spec)).strip() == str(Path("/proc/self/ns/net").readlink())

    @case
    async def test_masked_and_read_only_paths(self, kit: SupervisedKit) -> None:
        script = "cat /proc/keys /proc/kcore 2>/dev/null | wc -c; echo x > /proc/sys/kernel/hostname && echo written; true"
        assert (await self.says(kit, self.shell(kit, script))).split() == ["0"]

    @case
    async def test_what_runs_is_running_though_its_starter_was_killed(self, kit: SupervisedKit) -> None:
        """Whoever opens the FIFO lets the entrypoint go, and may be killed before it can say so."""
        runtime, id = kit.make(), self.id()
        try:
            await runtime.create(id, self.shell(kit, "exec sleep 1000"))
            [fifo] = kit.config.state.rglob(f"{id}/exec.fifo")
            assert await self.state(runtime, id) is SandboxState.CREATED
            assert fifo.read_bytes() == b"0"
            while await self.state(kit.make(), id) is not SandboxState.RUNNING:
                await asyncio.sleep(0.01)
            assert fifo.exists()
        finally:
            await runtime.delete(id, force=True)


@pytest.mark.backends
class TestRuncWithIdsOfItsOwn(TestRunc):
    """The same sandboxes, each in a user namespace with a range of ids that no other has."""

    users = "private"


@pytest.mark.backends
class TestCrun(DamageCases):
    """crun refuses hybrid hierarchies: there it gets a mount namespace without the unified one."""

    @pytest.fixture(scope="class")
    @classmethod
    def tool(cls, tmp_path_factory: pytest.TempPathFactory) -> Runc:
        return Runc(crun_of_this_host(tmp_path_factory.mktemp("crun")))
