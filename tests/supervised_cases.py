"""What real isolation adds to the suite of every backend, and conmon's supervision to that: cases for whatever OCI runtime."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from aos.compose.runtimes import bridge_network
from aos.config import Config
from aos.content.store import ContentStore
from aos.errors import FailedPrecondition
from aos.package import load_package
from aos.registry.local import LocalRegistry
from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
from aos.runtime.spec import AgentSpec, Confinement, Limits, Mount, ProcessSpec, Rootfs, Ulimit
from aos.runtime.state import SandboxState
from aos.testing.runtime import Kit, RuntimeConformance, case, shell_command
from fix_installation import requires_root
from traces import Traces, claims_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.ids import SandboxId
    from aos.oci.layer import Layer
    from aos.runtime.backends.supervised.tool import Tool

__all__ = ["IsolatedCases", "IsolatedKit", "SupervisedCases", "SupervisedKit", "files_of"]


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
    async def test_a_file_in_memory_is_the_process_s_alone_and_on_no_disk(self, kit: IsolatedKit) -> None:
        mount = Mount("file", "/run/secrets/key", data=b"word-in-memory", mode=0o400)
        script = "stat -c '%u:%g %a' /run/secrets/key; cat /run/secrets/key; echo; echo x >> /run/secrets/key || echo refused; exec sleep 1000"
        runtime = kit.make()
        spec = replace(self.shell(kit, script, user="1000:1001"), mounts=(mount,))
        assert "word-in-memory" not in repr(spec)
        async with self.running(runtime, spec) as id:
            while b"refused" not in (await runtime.logs(id)).read_bytes():
                await asyncio.sleep(0.01)
            lines = [line.split(" ", 3) for line in (await runtime.logs(id)).read_text().splitlines()]
            said = [text for _, stream, _, text in lines if stream == "stdout"]  # the shell complains, too
            assert said[:2] == ["1000:1001 400", "word-in-memory"]
            for place in (kit.config.root, kit.config.state):
                for path in place.rglob("*"):
                    if path.is_file() and path.name != "log":
                        assert b"word-in-memory" not in path.read_bytes(), path

    @case
    async def test_no_core_files(self, kit: IsolatedKit) -> None:
        assert await self.says(kit, self.shell(kit, "ulimit -c; ulimit -Hc")) == "0\n0\n"

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

    @case
    async def test_a_deletion_that_was_interrupted_is_no_obstacle_to_a_namesake(
        self, kit: IsolatedKit
    ) -> None:
        runtime, id = kit.make(), self.id()
        left = kit.sandboxes / f".{id}"
        (left / "upper").mkdir(parents=True)
        await runtime.create(id, self.shell(kit, "true"))
        await runtime.delete(id, force=True)
        assert await runtime.list() == []
        assert not left.exists()

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
        return shell_command(program, *args)

    def traces(self) -> frozenset[str]:
        return Traces.of(self.config).lines() | files_of(self.config)


class SupervisedCases(IsolatedCases):
    users = "host"
    """Whose user ids the sandboxes have."""

    @pytest.fixture(scope="class")
    @classmethod
    def tool(cls) -> Tool:
        """Of the backend; it skips where its program is not installed."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def kit(cls, busybox_root: Path, tool: Tool) -> Iterator[SupervisedKit]:
        requires_root()
        home = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))
        config = Config(home / "root", home / "state")
        shutil.copytree(busybox_root, config.root, symlinks=True)
        content = ContentStore(config.root / "content")
        digest = LocalRegistry(config.root / "registry", content).resolve("busybox:1")
        before = Traces.of(config)
        yield SupervisedKit(config, content, load_package(content.blobs, digest).layers, tool, cls.users)
        Traces.of(config).settle(config, before)
        shutil.rmtree(home)

    def test_a_creation_that_is_cancelled_while_its_group_is_made_leaves_none(
        self, kit: SupervisedKit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The thread that makes it goes on, whatever becomes of who waits for it."""
        runtime, id = kit.make(), self.id()
        groups, begun = runtime._host.cgroups, threading.Event()
        create = groups.create

        def slowly(group: str, limits: Limits) -> None:
            begun.set()
            time.sleep(0.3)
            create(group, limits)

        monkeypatch.setattr(groups, "create", slowly)

        async def go() -> None:
            making = asyncio.create_task(runtime.create(id, self.shell(kit, "exec sleep 1000")))
            await asyncio.to_thread(begun.wait, 60)
            await asyncio.sleep(0.1)  # conmon waits for it
            making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await making
            await asyncio.sleep(0.4)
            assert await runtime.list() == []

        asyncio.run(go())
        assert [str(path) for path in groups.hierarchies if (path / runtime._host.group(id)).exists()] == []

    @case
    async def test_a_fork_bomb_stays_within_its_limit(self, kit: SupervisedKit) -> None:
        script = "(bomb() { bomb | bomb & }; bomb) 2>/dev/null & exec sleep 1000"
        spec = replace(self.shell(kit, script), limits=Limits(pids=32, memory=256 << 20))
        runtime = kit.make()
        async with self.running(runtime, spec) as id:
            for _ in range(5):
                assert len(await runtime.processes(id)) <= 32
                pids = (await runtime.stats(id)).pids
                assert pids is None or pids <= 40  # the kernel counts a fork before it refuses it
                await asyncio.sleep(0.05)

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
    async def test_a_killed_conmon_is_lost_not_zero(self, kit: SupervisedKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "exec sleep 1000")) as id:
            conmon = _conmon_of(kit, id)
            os.kill(conmon, signal.SIGKILL)
            status = await runtime.wait(id)
            assert (status.cause, status.code, status.signal) == ("lost", None, None)
            assert status.shell_code == 255
            assert status.detail


_FOR_ALL = ("null-netns", "aos")
"""What runsc and containerd's shims make once, and keep."""


def files_of(config: Config) -> frozenset[str]:
    """What sandboxes have in an installation's directories, and user ids of the host's."""
    files = [*(config.root / "sandboxes").glob("*/*"), *(config.state / "runtime").glob("*/*")]
    return frozenset(str(path) for path in files if path.name not in _FOR_ALL) | claims_of(config)


def _conmon_of(kit: SupervisedKit, id: SandboxId) -> int:
    text = (kit.sandboxes / id / "sandbox.json").read_text()
    match = re.search(r'"conmon": (\d+)', text)
    assert match
    return int(match[1])
