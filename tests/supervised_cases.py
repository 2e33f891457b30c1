"""What real isolation adds to the suite of every backend, and conmon's supervision to that: cases for whatever OCI runtime."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from aos.compose import bridge_network
from aos.config import Config
from aos.content.store import ContentStore
from aos.errors import AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.package import load_package
from aos.registry.local import LocalRegistry
from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
from aos.runtime.spec import AgentSpec, Confinement, Limits, Mount, ProcessSpec, Rootfs, Ulimit
from aos.runtime.state import SandboxState
from aos.testing.runtime import Kit, RuntimeConformance, case, collect
from fix_installation import requires_root
from traces import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.ids import SandboxId
    from aos.oci.layer import Layer
    from aos.runtime.backends.supervised.tool import Tool

__all__ = ["SHELL", "IsolatedCases", "IsolatedKit", "SupervisedCases", "SupervisedKit"]

SHELL = {
    "exit": 'exit "$1"',
    "print": 'echo "$1"; echo "$2" >&2',
    "cat": "exec cat",
    "sleep": "exec sleep 1000",
    "env": 'eval "echo \\"\\$$1\\""',
    "hostname": "hostname",
    "count": "n=0; while :; do n=$((n+1)); echo $n; sleep 0.03; done",
}


class IsolatedKit(Kit, Protocol):
    """A kit whose sandboxes are real, in an installation of their own."""

    config: Config

    @property
    def sandboxes(self) -> Path:
        """Where the backend has a directory for each."""
        ...


class IsolatedCases(RuntimeConformance):
    """What every backend with real isolation passes."""

    def shell(self, kit: IsolatedKit, script: str, **more: Any) -> AgentSpec:
        return AgentSpec(ProcessSpec(("sh", "-c", script), **more), Rootfs(kit.layers))

    async def says(self, kit: IsolatedKit, spec: AgentSpec) -> str:
        run = await self.run(kit.make(), spec)
        assert run.status.code == 0, run
        return run.out.decode()

    @case
    async def test_a_process_may_handle_a_signal(self, kit: IsolatedKit) -> None:
        runtime = kit.make()
        spec = self.shell(kit, "trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done")
        async with self.created(runtime, spec) as id:
            stdio = await runtime.attach(id)
            await runtime.start(id)
            os.set_blocking(stdio.socket, True)
            assert await asyncio.to_thread(os.read, stdio.socket, 100) == b"\x02ready\n"
            await runtime.signal(id, signal.SIGTERM)
            os.close(stdio.socket)
            assert (await runtime.wait(id)).code == 9

    @case
    async def test_out_of_memory_is_the_cause(self, kit: IsolatedKit) -> None:
        spec = replace(self.shell(kit, "x=a; while :; do x=$x$x$x; done"), limits=Limits(memory=24 << 20))
        status = (await self.run(kit.make(), spec)).status
        assert (status.cause, status.signal) == ("oom", signal.SIGKILL)
        assert status.usage.memory_peak_bytes is not None
        assert status.usage.memory_peak_bytes <= 24 << 20

    @case
    async def test_processes_are_limited(self, kit: IsolatedKit) -> None:
        script = "n=0; while [ $n -lt 50 ]; do sleep 5 & n=$((n+1)); echo $n; done"
        run = await self.run(kit.make(), replace(self.shell(kit, script), limits=Limits(pids=8)))
        assert b"fork" in run.err
        assert int(run.out.split()[-1]) <= 8

    @case
    async def test_another_user_has_no_capabilities(self, kit: IsolatedKit) -> None:
        script = "id -u; id -g; grep CapEff /proc/self/status"
        for user in ("nobody", "65534:65534", "nobody:nogroup", "65534"):
            uid, _, effective = (await self.says(kit, self.shell(kit, script, user=user))).splitlines()
            assert uid == "65534"
            assert int(effective.split()[1], 16) == 0

    @case
    async def test_no_network_means_loopback_alone(self, kit: IsolatedKit) -> None:
        out = await self.says(
            kit, self.shell(kit, "ip -o link | cut -d: -f2; ip addr show lo | grep -c 127.0.0.1")
        )
        assert out.split() == ["lo", "1"]

    @case
    async def test_root_file_system(self, kit: IsolatedKit) -> None:
        assert await self.says(kit, self.shell(kit, "echo x > /file && cat /file")) == "x\n"
        spec = self.shell(kit, "touch /file 2>/dev/null || echo refused")
        read_only = replace(spec, rootfs=replace(spec.rootfs, read_only=True))
        assert await self.says(kit, read_only) == "refused\n"

    @case
    async def test_working_directory_is_made(self, kit: IsolatedKit) -> None:
        assert await self.says(kit, self.shell(kit, "pwd", cwd="/some/where")) == "/some/where\n"

    def test_mounts(self, kit: IsolatedKit, tmp_path: Path) -> None:
        (tmp_path / "directory").mkdir()
        (tmp_path / "directory/file").write_text("from the host\n")

        async def go() -> None:
            script = (
                "cat /in/file /single; echo new > /in/new; touch /ro/x 2>/dev/null || echo refused;"
                "df -k /scratch | tail -1 | awk '{print $2}'"
            )
            mounts = (
                Mount("bind", "/in", tmp_path / "directory"),
                Mount("bind", "/ro", tmp_path / "directory", read_only=True),
                Mount("bind", "/single", tmp_path / "directory/file", read_only=True),
                Mount("tmpfs", "/scratch", size=1 << 20),
            )
            out = await self.says(kit, replace(self.shell(kit, script), mounts=mounts))
            assert out.splitlines() == ["from the host", "from the host", "refused", "1024"]

        asyncio.run(go())
        assert (tmp_path / "directory/new").read_text() == "new\n"

    @case
    async def test_a_file_in_memory_is_the_process_s_alone_and_on_no_disk(self, kit: IsolatedKit) -> None:
        mount = Mount("file", "/run/secrets/key", data=b"word-in-memory", mode=0o400)
        script = "stat -c '%u:%g %a' /run/secrets/key; cat /run/secrets/key; echo; echo x >> /run/secrets/key || echo refused; exec sleep 1000"
        runtime = kit.make()
        spec = replace(self.shell(kit, script, user="1000:1001"), mounts=(mount,))
        assert "word-in-memory" not in repr(spec)
        async with self.running(runtime, spec) as id:
            while b"refused" not in (await runtime.logs(id)).read_bytes():
                await asyncio.sleep(0.01)
            said = [line.split(" ", 3)[3] for line in (await runtime.logs(id)).read_text().splitlines()]
            assert said[:2] == ["1000:1001 400", "word-in-memory"]
            for place in (kit.config.root, kit.config.state):
                for path in place.rglob("*"):
                    if path.is_file() and path.name != "log":
                        assert b"word-in-memory" not in path.read_bytes(), path

    @case
    async def test_layers_can_be_mounted_beside_the_root(self, kit: IsolatedKit) -> None:
        mounts = (
            Mount("layers", "/all", layers=kit.layers),
            Mount("layers", "/mnt/sh", layers=kit.layers, path="/bin/sh"),
        )
        script = "ls /all/bin | grep -cx busybox; /mnt/sh -c 'echo works'; touch /all/x 2>/dev/null || echo refused"
        out = await self.says(kit, replace(self.shell(kit, script), mounts=mounts))
        assert out.splitlines() == ["1", "works", "refused"]
        lost = replace(self.shell(kit, "true"), mounts=(Mount("layers", "/x", layers=kit.layers, path="no"),))
        with pytest.raises(NotFound, match="hold no 'no'"):
            await kit.make().create(self.id(), lost)

    @case
    async def test_no_core_files(self, kit: IsolatedKit) -> None:
        assert await self.says(kit, self.shell(kit, "ulimit -c; ulimit -Hc")) == "0\n0\n"

    @pytest.mark.parametrize("target", ["relative", "/", "/a/../b"])
    def test_mount_targets_are_checked(self, kit: IsolatedKit, target: str) -> None:
        spec = replace(self.shell(kit, "true"), mounts=(Mount("tmpfs", target),))
        with pytest.raises(InvalidArgument) as refused:
            asyncio.run(kit.make().create(self.id(), spec))
        assert refused.value.code == "spec-invalid"

    @case
    async def test_a_terminal_can_be_resized(self, kit: IsolatedKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "exec sleep 1000")) as id:
            made = await runtime.exec(
                id,
                ProcessSpec(("sh", "-c", "read x; stty size; test -t 1"), terminal=True, stdin=True),
                attach=True,
            )
            assert made.stdio is not None and made.stdio.control is not None
            ended = asyncio.create_task(runtime.start_exec(id, made.id))
            os.write(made.stdio.control, b"1 33 101\n")
            await asyncio.sleep(0.2)
            out = await collect(replace(made.stdio), b"\n")
            assert b"33 101" in out[0]
            assert (await ended).code == 0

    @case
    async def test_a_command_without_the_executable_bit_is_126(self, kit: IsolatedKit) -> None:
        runtime = kit.make()
        with pytest.raises(FailedPrecondition) as refused:
            async with self.running(runtime, AgentSpec(ProcessSpec(("/etc/passwd",)), Rootfs(kit.layers))):
                pass
        assert refused.value.subject["exit_status"] == 126

    @case
    async def test_near_names_are_suggested(self, kit: IsolatedKit) -> None:
        with pytest.raises(FailedPrecondition) as refused:
            await kit.make().create(self.id(), AgentSpec(ProcessSpec(("slep",)), Rootfs(kit.layers)))
        assert "sleep" in (refused.value.hint or "")

    @case
    async def test_a_half_made_sandbox_is_listed_and_deleted(self, kit: IsolatedKit) -> None:
        runtime, id = kit.make(), self.id()
        directory = kit.sandboxes / id
        directory.mkdir(parents=True)
        (directory / "config.json").write_text("{")
        assert await self.state(runtime, id) is SandboxState.CREATING
        await runtime.delete(id, force=True)
        assert not directory.exists()

    @pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.03, 0.05])
    def test_a_cancelled_creation_leaves_nothing(self, kit: IsolatedKit, delay: float) -> None:
        async def go() -> None:
            runtime, id = kit.make(), self.id()
            making = asyncio.create_task(runtime.create(id, self.shell(kit, "exec sleep 1000")))
            await asyncio.sleep(delay)
            making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await making
            await runtime.delete(id, force=True)
            assert await runtime.list() == []

        asyncio.run(go())

    @case
    async def test_many_execs_one_after_the_other(self, kit: IsolatedKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "exec sleep 1000")) as id:
            for number in range(20):
                run = await self.execute(
                    runtime, id, ProcessSpec(("sh", "-c", f"echo {number}; exit {number}"))
                )
                assert (run.status.code, run.out) == (number, b"%d\n" % number)

    @case
    async def test_orphans_of_the_sandbox_end_with_it(self, kit: IsolatedKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "sleep 1000 & sleep 1000 & exit 0")) as id:
            assert (await runtime.wait(id)).code == 0


class SupervisedKit:
    def __init__(
        self, config: Config, content: ContentStore, layers: tuple[Layer, ...], tool: Tool, users: str
    ) -> None:
        self.users = users
        self.cdi: tuple[Path, ...] = ()
        """Where the host describes its devices."""
        self.config = config
        self.content = content
        self.layers = layers
        self.tool = tool

    @property
    def sandboxes(self) -> Path:
        return self.config.root / "sandboxes" / self.tool.backend

    def make(self) -> SupervisedRuntime:
        config = SupervisedConfig(
            self.config.root, self.config.state, self.config.installation, users=self.users, cdi=self.cdi
        )
        return SupervisedRuntime(config, self.tool, self.content, bridge_network(self.config))

    def command(self, program: str, *args: str) -> tuple[str, ...]:
        if program == "missing":
            return ("no-such-command",)
        return ("sh", "-c", SHELL[program], "sh", *args)


class SupervisedCases(IsolatedCases):
    users = "host"
    """Whose user ids the sandboxes have."""

    def tool(self) -> Tool:
        """Of the backend; it skips where its program is not installed."""
        raise NotImplementedError

    @pytest.fixture
    def kit(self, busybox_root: Path) -> Iterator[SupervisedKit]:
        requires_root()
        tool = self.tool()
        home = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))
        config = Config(home / "root", home / "state")
        shutil.copytree(busybox_root, config.root, symlinks=True)
        content = ContentStore(config.root / "content")
        digest = LocalRegistry(config.root / "registry", content).resolve("busybox:1")
        descriptors = _open_descriptors()
        before = Traces.of(config)
        yield SupervisedKit(config, content, load_package(content.blobs, digest).layers, tool, self.users)
        Traces.of(config).settle(config, before)
        assert list((config.root / "sandboxes").glob("*/*")) == []
        left = {path.name for path in (config.state / "runtime").glob("*/*")}
        assert left <= {"null-netns"}  # one for all sandboxes of runsc, an empty file
        assert _open_descriptors() <= descriptors
        shutil.rmtree(home)

    @case
    async def test_a_fork_bomb_stays_within_its_limit(self, kit: SupervisedKit) -> None:
        script = "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 0.5; echo survived"
        spec = replace(self.shell(kit, script), limits=Limits(pids=32, memory=256 << 20))
        runtime = kit.make()
        async with self.running(runtime, spec) as id:
            await asyncio.sleep(0.3)
            pids = (await runtime.stats(id)).pids
            assert pids is None or pids <= 64  # gVisor's own threads count on the host

    @case
    async def test_open_files_are_limited(self, kit: SupervisedKit) -> None:
        script = (
            'i=3; while [ $i -lt 200 ]; do eval "exec $i</bin/busybox" || break; i=$((i+1)); done; echo $i'
        )
        few = Confinement(ulimits=(Ulimit("nofile", 32, 32),))
        run = await self.run(kit.make(), replace(self.shell(kit, f"({script})"), confinement=few))
        assert b"200" not in run.out

    @case
    async def test_a_disk_of_its_own_is_full_when_it_is_full(self, kit: SupervisedKit) -> None:
        script = "dd if=/dev/zero of=/fill bs=1M count=64 2>&1 | grep -c 'No space'; rm /fill; echo fits > /x; cat /x"
        spec = self.shell(kit, script)
        spec = replace(spec, rootfs=replace(spec.rootfs, size=16 << 20))
        assert (await self.says(kit, spec)).split() == ["1", "fits"]

    @case
    async def test_a_disk_of_its_own_has_an_end_of_files(self, kit: SupervisedKit) -> None:
        script = "i=0; while mkdir /d$i 2>/dev/null && [ $i -lt 9000 ]; do i=$((i+1)); done; echo $i"
        spec = self.shell(kit, script)
        spec = replace(spec, rootfs=replace(spec.rootfs, size=4 << 20))
        assert 0 < int(await self.says(kit, spec)) < 9000

    @case
    async def test_a_link_where_a_path_was_allowed_is_refused(
        self, kit: SupervisedKit, tmp_path: Path
    ) -> None:
        """Whoever may write beside the source swaps it after the policy has looked."""
        (tmp_path / "allowed").mkdir()
        source = tmp_path / "allowed" / "data"
        source.symlink_to("/etc")
        spec = self.shell(kit, "ls /data")
        refused = replace(spec, mounts=(Mount("bind", "/data", source, follow=False),))
        with pytest.raises(FailedPrecondition) as error:
            await kit.make().create(self.id(), refused)
        assert error.value.code == "mount-failed"
        followed = replace(spec, mounts=(Mount("bind", "/data", source),))  # the control
        assert "passwd" in await self.says(kit, followed)

    @case
    async def test_a_link_in_a_mount_leads_no_other_mount_away(
        self, kit: SupervisedKit, tmp_path: Path
    ) -> None:
        """An agent leaves a link in its volume; the next sandbox mounts something at it."""
        volume, other = tmp_path / "volume", tmp_path / "other"
        volume.mkdir()
        other.mkdir()
        (other / "version").write_text("forged\n")
        for target in ("/proc", "../../../../../../proc", "/"):
            (volume / "link").unlink(missing_ok=True)
            (volume / "link").symlink_to(target)
            spec = self.shell(kit, "cat /proc/version; ls /bin/busybox")
            spec = replace(
                spec, mounts=(Mount("bind", "/volume", volume), Mount("bind", "/volume/link", other))
            )
            try:
                said = await self.says(kit, spec)
            except AosError:
                continue
            assert "forged" not in said and "/bin/busybox" in said

    @case
    async def test_a_killed_conmon_is_lost_not_zero(self, kit: SupervisedKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "exec sleep 1000")) as id:
            conmon = _conmon_of(kit, id)
            os.kill(conmon, signal.SIGKILL)
            status = await runtime.wait(id)
            assert (status.cause, status.code, status.signal) == ("lost", None, None)
            assert status.shell_code == 255
            assert status.detail


def _open_descriptors() -> int:
    gc.collect()  # a closed event loop, and what it watched, is a circle
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _conmon_of(kit: SupervisedKit, id: SandboxId) -> int:
    text = (kit.sandboxes / id / "sandbox.json").read_text()
    match = re.search(r'"conmon": (\d+)', text)
    assert match
    return int(match[1])
