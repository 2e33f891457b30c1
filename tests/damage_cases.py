"""Supervised sandboxes of hostile root file systems, with limits that are too low, and damaged behind the backend's back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.compose.runtimes import bridge_network
from aos.errors import AosError, FailedPrecondition, InvalidArgument
from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
from aos.runtime.spec import AgentSpec, Limits, Mount, ProcessSpec, Rootfs
from aos.runtime.state import SandboxState
from aos.testing.runtime import case
from supervised_cases import SupervisedCases, SupervisedKit

if TYPE_CHECKING:
    from aos.ids import SandboxId

__all__ = ["DamageCases"]


class DamageCases(SupervisedCases):
    @case
    async def test_a_limit_below_what_is_used_is_refused_or_kills(self, kit: SupervisedKit) -> None:
        """Version 1 of cgroups refuses it; version 2 takes it, and the kernel makes room."""
        runtime = kit.make()
        script = "x=a; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do x=$x$x$x; [ ${#x} -gt 9000000 ] && break; done; echo full; sleep 1000; echo $x"
        async with self.running(runtime, self.shell(kit, script)) as id:
            while b"full" not in (await runtime.logs(id)).read_bytes():
                await asyncio.sleep(0.02)
            try:
                await runtime.update(id, Limits(memory=2 << 20))
            except InvalidArgument as error:
                assert error.code == "limit-refused"
                assert await self.state(runtime, id) is SandboxState.RUNNING
            else:
                assert (await runtime.wait(id)).cause == "oom"

    @case
    async def test_too_little_memory_to_start_is_said(self, kit: SupervisedKit) -> None:
        runtime, spec = kit.make(), replace(self.shell(kit, "true"), limits=Limits(memory=64 << 10))
        try:
            status = (await self.run(runtime, spec)).status
        except InvalidArgument as refused:
            assert refused.code == "limit-refused"
        else:  # the runtime got by, and the kernel ended what it had started
            assert status.cause == "oom"
        assert await runtime.list() == []

    # Root file systems that are not as they should be. What is in an upper directory is in the root.

    def rooted(self, kit: SupervisedKit, upper: Path, *args: str) -> AgentSpec:
        return AgentSpec(ProcessSpec(args), Rootfs(kit.layers, upper=upper))

    @pytest.fixture
    def upper(self, tmp_path: Path) -> Path:
        (tmp_path / "root").mkdir(mode=0o755)
        return tmp_path / "root"

    def refusal(self, kit: SupervisedKit, spec: AgentSpec) -> FailedPrecondition | InvalidArgument:
        async def go() -> FailedPrecondition | InvalidArgument:
            runtime = kit.make()
            with pytest.raises((FailedPrecondition, InvalidArgument)) as refused:
                await runtime.create(self.id(), spec)
            assert await runtime.list() == []
            assert isinstance(refused.value, FailedPrecondition | InvalidArgument)
            return refused.value

        return asyncio.run(asyncio.wait_for(go(), 30))

    def program(self, upper: Path, content: bytes, mode: int = 0o755) -> str:
        (upper / "opt").mkdir(exist_ok=True)
        (upper / "opt/program").write_bytes(content)
        (upper / "opt/program").chmod(mode)
        return "/opt/program"

    def test_a_program_for_another_processor(self, kit: SupervisedKit, upper: Path) -> None:
        machine, name = (183, "aarch64") if os.uname().machine == "x86_64" else (62, "x86_64")
        elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine.to_bytes(2, "little") + bytes(100)
        refused = self.refusal(kit, self.rooted(kit, upper, self.program(upper, elf)))
        assert refused.code == "entrypoint-not-executable"
        assert f"it is a program for {name}, and this is {os.uname().machine}" in refused.message

    def test_a_script_without_its_interpreter(self, kit: SupervisedKit, upper: Path) -> None:
        refused = self.refusal(kit, self.rooted(kit, upper, self.program(upper, b"#!/usr/bin/python3 -u\n")))
        assert refused.subject["exit_status"] == 126
        assert "its interpreter /usr/bin/python3 is not in the image" in refused.message

    @pytest.mark.parametrize("command", ["/opt/nothing", "opt/nothing", "slep", "/bin"])
    def test_what_is_no_command(self, kit: SupervisedKit, upper: Path, command: str) -> None:
        refused = self.refusal(kit, self.rooted(kit, upper, command))
        assert refused.subject["exit_status"] == (126 if command == "/bin" else 127)
        assert "sleep" in (refused.hint or "") or command != "slep"

    def test_a_link_that_leads_round_in_circles(self, kit: SupervisedKit, upper: Path) -> None:
        (upper / "a").symlink_to("/b")
        (upper / "b").symlink_to("/a")

        async def go() -> None:
            runtime = kit.make()
            with pytest.raises(AosError):
                async with self.running(runtime, self.rooted(kit, upper, "/a")):
                    pass
            assert await runtime.list() == []

        asyncio.run(asyncio.wait_for(go(), 30))

    @pytest.mark.parametrize(
        "target", ["/proc", "/proc/sys/kernel", "/sys/fs/cgroup", "/dev", "/dev/pts", "/way/in"]
    )
    def test_nothing_is_mounted_over_the_sandbox_s_own(
        self, kit: SupervisedKit, upper: Path, target: str
    ) -> None:
        (upper / "way").symlink_to("../proc")
        spec = replace(self.rooted(kit, upper, "true"), mounts=(Mount("tmpfs", target),))
        refused = self.refusal(kit, spec)
        assert refused.code == "mount-target-reserved"
        assert ("/proc/in" in refused.message) == (target == "/way/in")

    def test_no_file_of_ours_is_mounted_over_the_sandbox_s_own(self, kit: SupervisedKit, upper: Path) -> None:
        (upper / "etc").mkdir()
        (upper / "etc/hosts").symlink_to("../proc/version")
        refused = self.refusal(kit, self.rooted(kit, upper, "true"))
        assert refused.code == "mount-target-reserved"
        assert "/etc/hosts" in refused.message and "/proc/version" in refused.message

    def test_links_in_mount_targets_stay_inside(
        self, kit: SupervisedKit, upper: Path, tmp_path: Path
    ) -> None:
        """A hostile image makes its links lead out; what is mounted there lands in its own root."""
        outside = tmp_path / "outside"
        (upper / "up").symlink_to("../../../../../../.." + str(outside))
        (upper / "absolute").symlink_to(str(outside))
        (tmp_path / "given").mkdir()
        (tmp_path / "given/word").write_text("inside\n")

        async def go() -> None:
            mounts = tuple(Mount("bind", target, tmp_path / "given") for target in ("/up/a", "/absolute/b"))
            spec = self.rooted(kit, upper, "cat", "/up/a/word", f"{outside}/b/word")
            run = await self.run(kit.make(), replace(spec, mounts=mounts))
            assert run.out == b"inside\ninside\n", run

        asyncio.run(asyncio.wait_for(go(), 30))
        assert not outside.exists()

    # What happens behind our back.

    @case
    async def test_paths_longer_than_a_socket_address(self, kit: SupervisedKit) -> None:
        home = kit.config.root / ("deep" * 30)
        config = SupervisedConfig(home / "root", home / "state", kit.config.installation)
        runtime = SupervisedRuntime(config, kit.tool, kit.content, bridge_network(kit.config))
        run = await self.run(runtime, self.shell(kit, "cat; echo over", stdin=True), b"in\n")
        assert (run.status.code, run.out) == (0, b"in\nover\n")
        async with self.running(runtime, self.shell(kit, "exec sleep 1000")) as id:
            done = await self.execute(runtime, id, ProcessSpec(("echo", "inside")))
            assert done.out == b"inside\n"
        shutil.rmtree(home)

    @case
    async def test_a_cgroup_that_is_removed_by_hand(self, kit: SupervisedKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "exec sleep 1000")) as id:
            await asyncio.sleep(0.4)  # conmon joins late
            _remove_groups(kit.config.installation, id)
            assert await self.state(runtime, id) is SandboxState.RUNNING
            assert (await runtime.stats(id)).pids is None
            with contextlib.suppress(AosError):  # some runtimes want to look into the group before
                done = await self.execute(runtime, id, ProcessSpec(("sh", "-c", "exit 3")))
                assert done.status.code in (3, None)
            await runtime.signal(id, signal.SIGKILL)
            status = await runtime.wait(id)
            assert (status.cause, status.signal) == ("signaled", signal.SIGKILL)

    @case
    async def test_a_damaged_record_is_a_sandbox_that_can_be_removed(self, kit: SupervisedKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "sleep 1000 & exec sleep 1000")) as id:
            (kit.sandboxes / id / "sandbox.json").write_text('{"conmon": 12')
            other = kit.make()
            assert await self.state(other, id) is SandboxState.CREATING
            assert (await other.wait(id)).cause == "lost"
            await other.delete(id, force=True)
            assert await other.list() == []


def _remove_groups(installation: str, id: SandboxId) -> None:
    """As somebody with a shell would: the processes to the top, then every group."""
    for directory, _, _ in [*os.walk("/sys/fs/cgroup")][::-1]:
        if f"/{installation}/{id}" in directory:
            top = Path(directory[: directory.index(f"/{installation}")], "cgroup.procs")
            for pid in Path(directory, "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    top.write_text(pid)
            for _ in range(100):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
                    break
