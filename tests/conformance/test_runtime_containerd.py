"""The containerd backend passes the suite of every backend, with containerd 1.6 and 2."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aos.compose.runtimes import bridge_network
from aos.config import Config
from aos.content.store import ContentStore
from aos.errors import AlreadyExists, FailedPrecondition, Unavailable
from aos.package import load_package
from aos.registry.local import LocalRegistry
from aos.runtime.backends.containerd import ContainerdConfig, ContainerdRuntime
from aos.runtime.backends.containerd.streams import holders
from aos.runtime.spec import Confinement, Mount, ProcessSpec, Rootfs
from aos.testing.runtime import case, collect, shell_command
from device_cases import DeviceCases
from fix_installation import end_process, requires_root
from supervised_cases import files_of
from traces import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.ids import SandboxId
    from aos.oci.layer import Layer
    from fix_containerd import Containerd

pytestmark = [pytest.mark.root, pytest.mark.backends]


class ContainerdKit:
    backend = "containerd"

    def __init__(
        self,
        config: Config,
        content: ContentStore,
        layers: tuple[Layer, ...],
        containerd: Containerd,
        users: str = "host",
    ) -> None:
        self.users = users
        self.config = config
        self.content = content
        self.layers = layers
        self.containerd = containerd
        self.cdi: tuple[Path, ...] = ()
        """Where the host describes its devices."""

    @property
    def sandboxes(self) -> Path:
        return self.config.root / "sandboxes" / self.backend

    @property
    def settings(self) -> ContainerdConfig:
        config = self.config
        return ContainerdConfig(
            config.root,
            config.state,
            config.installation,
            self.containerd.address,
            users=self.users,
            cdi=self.cdi,
        )

    def make(self) -> ContainerdRuntime:
        return ContainerdRuntime(self.settings, self.content, bridge_network(self.config))

    def command(self, program: str, *args: str) -> tuple[str, ...]:
        return shell_command(program, *args)

    def traces(self) -> frozenset[str]:
        return Traces.of(self.config).lines() | files_of(self.config)


class ContainerdCases(DeviceCases):
    users = "host"
    """Whose user ids the sandboxes have."""

    @pytest.fixture(scope="class")
    @classmethod
    def containerd(cls) -> Containerd:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def kit(cls, busybox_root: Path, containerd: Containerd) -> Iterator[ContainerdKit]:
        requires_root()
        home = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))
        config = Config(home / "root", home / "state")
        shutil.copytree(busybox_root, config.root, symlinks=True)
        content = ContentStore(config.root / "content")
        digest = LocalRegistry(config.root / "registry", content).resolve("busybox:1")
        before = Traces.of(config)
        layers = load_package(content.blobs, digest).layers
        yield ContainerdKit(config, content, layers, containerd, cls.users)
        Traces.of(config).settle(config, before)
        assert containerd.ctr("containers", "list", "--quiet").split() == []
        assert containerd.ctr("tasks", "list", "--quiet").split() == []
        assert containerd.ctr("leases", "list", "--quiet").split() == []
        snapshots = containerd.ctr("snapshots", "list").splitlines()[1:]
        assert [line for line in snapshots if line.split()[-1] != "Committed"] == []
        shutil.rmtree(home)

    # What can happen to containerd, its shims and our holders.

    def container(self, kit: ContainerdKit, id: SandboxId) -> Any:
        return json.loads(kit.containerd.ctr("containers", "info", id))

    @case
    async def test_it_is_what_the_command_line_of_containerd_shows(self, kit: ContainerdKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            found = self.container(kit, id)
            assert found["Runtime"]["Name"] == "io.containerd.runc.v2"
            assert found["Labels"]["aos.openos.dev/installation"] == kit.config.installation
            assert found["Labels"]["aos.openos.dev/backend"] == kit.backend
            images = kit.containerd.ctr("images", "list", "--quiet").split()
            assert [name.partition(":")[0] for name in images] == ["aos.openos.dev/layers"]

    @case
    async def test_a_killed_shim_is_lost_not_zero(self, kit: ContainerdKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            waiting = asyncio.create_task(runtime.wait(id))
            await asyncio.sleep(0)
            for pid in shims(kit.containerd, id):
                os.kill(pid, signal.SIGKILL)
            status = await waiting
            assert (status.cause, status.code, status.signal) == ("lost", None, None)
            assert status.detail

    @case
    async def test_the_death_of_containerd_is_waited_out(self, kit: ContainerdKit) -> None:
        runtime = kit.make()
        script = "read x; echo $x; read x; exit $x"
        async with self.running(runtime, self.shell(kit, script, stdin=True)) as id:
            waiting = asyncio.create_task(runtime.wait(id))
            stdio = await runtime.attach(id)
            with socket.socket(fileno=stdio.socket) as stream:
                kit.containerd.kill()
                try:
                    with pytest.raises(Unavailable) as refused:
                        await runtime.pause(id)
                    assert refused.value.code == "containerd-unavailable"
                    assert [sandbox.id for sandbox in await runtime.list()] == [id]
                    stream.sendall(b"there\n")  # what runs goes on, and so do its streams
                    assert await asyncio.to_thread(stream.recv, 100) == b"\x02there\n"
                finally:
                    await asyncio.to_thread(kit.containerd.start)
                stream.sendall(b"6\n")
                assert (await waiting).code == 6

    @case
    async def test_an_end_that_containerd_was_not_there_for_is_never_invented(
        self, kit: ContainerdKit
    ) -> None:
        """Version 2 takes a shim without processes for a leak when it starts, and forgets its exit code."""
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, "read x; exit 6", stdin=True)) as id:
            stdio = await runtime.attach(id)
            kit.containerd.kill()
            try:
                assert await collect(stdio, b"now\n") == (b"", b"")
            finally:
                await asyncio.to_thread(kit.containerd.start)
            status = await kit.make().wait(id)
            assert (status.cause, status.code) in (("exited", 6), ("lost", None))

    @case
    async def test_a_killed_holder_is_replaced_and_nothing_is_missed(self, kit: ContainerdKit) -> None:
        script = "echo before; read x; echo after; exec sleep 1000"
        runtime = kit.make()
        async with self.running(runtime, self.shell(kit, script, stdin=True)) as id:
            log = await runtime.logs(id)
            while b"before" not in log.read_bytes():
                await asyncio.sleep(0.01)
            [holder] = holders(id, kit.containerd.address)
            end_process(holder)
            stdio = await kit.make().attach(id)
            with socket.socket(fileno=stdio.socket) as stream:
                stream.sendall(b"x\n")
                assert await asyncio.to_thread(stream.recv, 100) == b"\x02after\n"
            texts = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
            assert texts == ["before", "after"]

    @case
    async def test_what_was_removed_by_hand_is_lost_and_can_be_deleted(self, kit: ContainerdKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            kit.containerd.ctr("tasks", "delete", "--force", id)
            kit.containerd.ctr("containers", "delete", id)
            status = await kit.make().wait(id)
            assert status.cause in ("lost", "signaled")  # it was killed; who asked in time has heard of that
            assert status.code is None

    @case
    async def test_a_container_of_somebody_else_is_left_alone(self, kit: ContainerdKit) -> None:
        runtime, id = kit.make(), self.id()
        rootfs = kit.config.root.parent / "theirs"
        rootfs.mkdir()
        kit.containerd.ctr("containers", "create", "--rootfs", str(rootfs), id, "true")
        try:
            with pytest.raises(AlreadyExists) as refused:
                await runtime.create(id, self.spec(kit, "sleep"))
            assert refused.value.code == "sandbox-exists"
            assert await runtime.list() == []
            assert self.container(kit, id)["ID"] == id
        finally:
            kit.containerd.ctr("containers", "delete", id)

    @case
    async def test_layers_are_kept_by_an_image_and_go_with_ours(self, kit: ContainerdKit) -> None:
        runtime = kit.make()
        await self.run(runtime, self.spec(kit, "exit", "0"))
        snapshots = kit.containerd.ctr("snapshots", "list").splitlines()[1:]
        assert len(snapshots) == len(kit.layers)
        content = kit.containerd.ctr("content", "list", "--quiet").split()
        assert not {layer.digest for layer in kit.layers} & set(content) or await self.collected(kit)

    async def collected(self, kit: ContainerdKit) -> bool:
        """Whether containerd's collection has taken the blobs, which nothing needs once they are unpacked."""
        while {layer.digest for layer in kit.layers} & set(
            kit.containerd.ctr("content", "list", "--quiet").split()
        ):
            await asyncio.sleep(0.1)
        return True

    @pytest.mark.parametrize("deleted", [False, True])
    def test_what_a_killed_daemon_had_mounted_is_let_go_and_not_emptied(
        self, kit: ContainerdKit, tmp_path: Path, deleted: bool
    ) -> None:
        """It died while it made the sandbox; or, after that, while it deleted it."""
        (tmp_path / "file").write_text("somebody's")
        directory = kit.sandboxes / (".case-half" if deleted else "case-half")
        (directory / "binds/0").mkdir(parents=True)
        subprocess.run(["mount", "--bind", tmp_path, directory / "binds/0"], check=True)

        async def go() -> None:
            runtime = kit.make()
            for sandbox in await runtime.list():
                await runtime.delete(sandbox.id, force=True)
            assert await runtime.list() == []

        asyncio.run(go())
        assert not directory.exists()
        assert (tmp_path / "file").read_text() == "somebody's"

    def test_what_is_mounted_inside_of_a_shared_directory_is_the_sandbox_s_alone(
        self, kit: ContainerdKit, tmp_path: Path
    ) -> None:
        """With systemd all directories of a host are: what is mounted there, and stays, everybody has."""
        (tmp_path / "in").mkdir()
        subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        mounts = (Mount("bind", "/v", tmp_path), Mount("tmpfs", "/v/in"))

        async def go() -> str:
            spec = replace(self.shell(kit, "echo >/v/in/x; ls /v/in; exec sleep 1000"), mounts=mounts)
            async with self.running(runtime := kit.make(), spec) as id:
                run = await self.execute(runtime, id, ProcessSpec(("ls", "/v/in")))
                assert run.out == b"x\n"
                return Path("/proc/self/mountinfo").read_text()

        try:
            assert f" {tmp_path}/in " not in asyncio.run(go())
        finally:
            subprocess.run(["umount", "--recursive", tmp_path], check=True)

    @case
    async def test_what_a_build_commits_is_in_its_own_directory(self, kit: ContainerdKit) -> None:
        upper = kit.config.root / "upper"
        upper.mkdir()
        spec = self.shell(kit, "echo made >/file; rm /bin/cat")
        run = await self.run(kit.make(), replace(spec, rootfs=replace(spec.rootfs, upper=upper)))
        assert run.status.code == 0
        assert (upper / "file").read_text() == "made\n"
        assert stat.S_ISCHR((upper / "bin/cat").lstat().st_mode)  # a whiteout


class TestContainerd1(ContainerdCases):
    @pytest.fixture(scope="class")
    @classmethod
    def containerd(cls, containerd1: Containerd) -> Containerd:
        return containerd1


class TestContainerd2(ContainerdCases):
    @pytest.fixture(scope="class")
    @classmethod
    def containerd(cls, containerd2: Containerd) -> Containerd:
        return containerd2


class OwnIdsCases(ContainerdCases):
    """The same sandboxes, each in a user namespace with a range of ids that no other has."""

    users = "private"

    @case
    async def test_several_layers_are_shown_with_their_owners(self, kit: ContainerdKit) -> None:
        """Also those that are mounted; and what it writes is its range's on the disk."""
        owners = "stat -c %u / /bin/busybox /d/bin/busybox"
        shell = self.shell(kit, "exec sleep 1000")
        twice = kit.layers * 2
        spec = replace(shell, rootfs=Rootfs(twice), mounts=(Mount("layers", "/d", layers=twice),))
        runtime = kit.make()
        ranges = []
        async with self.running(runtime, spec) as one, self.running(runtime, spec) as other:
            for id in (one, other):
                run = await self.execute(
                    runtime, id, ProcessSpec(("sh", "-c", f"echo >/new; {owners}; cat /proc/self/uid_map"))
                )
                *seen, inside, outside, count = map(int, run.out.split())
                assert (seen, inside, count) == ([0, 0, 0], 0, 65536)
                ranges.append(outside)
                root = await runtime.root(id)
                assert os.stat("new", dir_fd=root).st_uid == outside
                os.close(root)
        assert ranges[0] != ranges[1] and min(ranges) >= 65536

    @case
    async def test_a_containerd_whose_directories_are_closed(self, kit: ContainerdKit) -> None:
        """The sandbox's root cannot walk to its root: told, or, where that may be, with the host's ids."""
        kit.containerd.home.chmod(0o700)
        try:
            runtime = kit.make()
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.create(self.id(), self.spec(kit, "sleep"))
            assert refused.value.code == "user-namespace-unavailable"
            assert "chmod" in str(refused.value.hint)
            spec = replace(self.spec(kit, "sleep"), confinement=Confinement(users="auto"))
            for _ in range(2):
                id = self.id()
                made = await runtime.create(id, spec)
                assert "closed" in str(made.users)
                await runtime.delete(id, force=True)
        finally:
            kit.containerd.home.chmod(0o711)


class TestContainerd1WithIdsOfItsOwn(OwnIdsCases, TestContainerd1):
    pass


class TestContainerd2WithIdsOfItsOwn(OwnIdsCases, TestContainerd2):
    pass


def shims(containerd: Containerd, id: SandboxId) -> list[int]:
    """containerd's shim of a sandbox."""
    wanted = {b"-id", os.fsencode(id), os.fsencode(f"{containerd.address}")}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted <= set(words) and b"containerd-shim" in words[0]:
                found.append(int(entry.name))
    return found
