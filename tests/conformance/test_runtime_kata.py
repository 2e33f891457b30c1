"""The kata backend: its choice of handler, and what it tells Kata by annotations.

Guests of virtual machines do not start everywhere, so containerd's own shim for runc is installed here under the name of
Kata's. That proves that containerd is asked for the handler `io.containerd.kata.v2`, that it finds a shim by that name,
and that the shim gets our specification. It proves nothing about Kata: not that it takes the annotations, not that a guest
boots, not isolation. docs/kata.md says how to run all of this on the real one: AOS_TEST_KATA names the socket of a
containerd that has it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aos.compose.runtimes import bridge_network
from aos.config import Config
from aos.content.store import ContentStore
from aos.errors import NotImplemented
from aos.package import load_package
from aos.registry.local import LocalRegistry
from aos.runtime.backends.containerd import ContainerdRuntime
from aos.runtime.spec import Limits, Mount, NetworkSpec, ProcessSpec
from aos.testing.runtime import RuntimeConformance, case
from conformance.test_runtime_containerd import ContainerdKit
from fix_containerd import Containerd, program, running_containerd
from fix_installation import requires_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.ids import SandboxId

pytestmark = [pytest.mark.root, pytest.mark.backends]


class KataKit(ContainerdKit):
    backend = "kata"

    def make(self) -> ContainerdRuntime:
        return ContainerdRuntime.kata(self.settings, self.content, bridge_network(self.config))


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    """One that has Kata, or one that finds runc's shim under the name of Kata's."""
    address = os.environ.get("AOS_TEST_KATA")
    if address:
        installed = shutil.which("containerd")
        assert installed, "ctr, which asks the containerd that AOS_TEST_KATA names, is not on PATH"
        yield Containerd(installed, Path(address).parent, os.environ["PATH"], socket=address)
        return
    ours = program(2)
    shims = Path(tempfile.mkdtemp(prefix="aos-shims-", dir="/tmp"))
    shutil.copy(Path(ours).with_name("containerd-shim-runc-v2"), shims / "containerd-shim-kata-v2")
    with running_containerd(ours, shims) as running:
        yield running
    shutil.rmtree(shims)


@pytest.fixture(scope="module")
def kit(busybox_root: Path, containerd: Containerd) -> Iterator[KataKit]:
    requires_root()
    home = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))
    config = Config(home / "root", home / "state")
    shutil.copytree(busybox_root, config.root, symlinks=True)
    content = ContentStore(config.root / "content")
    digest = LocalRegistry(config.root / "registry", content).resolve("busybox:1")
    yield KataKit(config, content, load_package(content.blobs, digest).layers, containerd)
    shutil.rmtree(home)


class TestContract(RuntimeConformance):
    """Also the cases that any shim passes which is what containerd says a shim is."""

    def found(self, kit: KataKit, id: SandboxId) -> Any:
        return json.loads(kit.containerd.ctr("containers", "info", id))

    @case
    async def test_the_handler_is_katas(self, kit: KataKit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            assert self.found(kit, id)["Runtime"]["Name"] == "io.containerd.kata.v2"
            shims = [words for words in _commands() if b"containerd-shim-kata-v2" in words[0]]
            assert any(os.fsencode(id) in words for words in shims)
        info = await runtime.info()
        assert (info.name, info.isolation) == ("kata", "vm")

    @case
    async def test_the_machine_is_as_large_as_the_limits(self, kit: KataKit) -> None:
        spec = replace(self.spec(kit, "sleep"), limits=Limits(memory=256 << 20, cpus=1.5))
        async with self.created(kit.make(), spec) as id:
            annotations = self.found(kit, id)["Spec"]["annotations"]
            assert annotations["io.katacontainers.config.hypervisor.default_vcpus"] == "2"
            assert annotations["io.katacontainers.config.hypervisor.default_memory"] == "384"

    @case
    async def test_annotations_of_the_agent_and_the_configuration_file(self, kit: KataKit) -> None:
        name = "io.katacontainers.config.hypervisor.default_vcpus"
        spec = replace(self.spec(kit, "sleep"), limits=Limits(cpus=1), annotations=((name, "4"),))
        config = replace(kit.settings, kata_config="/etc/kata/clh.toml")
        runtime = ContainerdRuntime.kata(config, kit.content, bridge_network(kit.config))
        async with self.created(runtime, spec) as id:
            annotations = self.found(kit, id)["Spec"]["annotations"]
            assert annotations[name] == "4"
            assert annotations["io.katacontainers.config_path"] == "/etc/kata/clh.toml"

    def test_what_does_not_reach_a_guest_is_refused(self, kit: KataKit, tmp_path: Path) -> None:
        @case
        async def go(self: TestContract, kit: KataKit) -> None:
            runtime = kit.make()
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(tmp_path / "s"))
                spec = replace(self.spec(kit, "sleep"), mounts=(Mount("bind", "/s", tmp_path / "s"),))
                with pytest.raises(NotImplemented, match="socket") as refused:
                    await runtime.create(self.id(), spec)
                assert "vsock" in (refused.value.hint or "")
            for network in (NetworkSpec("host"), NetworkSpec("bridge"), NetworkSpec("agent", "x")):
                with pytest.raises(NotImplemented, match="network"):
                    await runtime.create(self.id(), replace(self.spec(kit, "sleep"), network=network))
            async with self.running(runtime, self.spec(kit, "sleep")) as id:
                for call in (runtime.processes, runtime.root):
                    with pytest.raises(NotImplemented):
                        await call(id)
                made = await runtime.exec(id, ProcessSpec(kit.command("exit", "3")), attach=False)
                assert (await runtime.start_exec(id, made.id)).code == 3
            assert await runtime.list() == []

        go(self, kit)


def _commands() -> list[list[bytes]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes().split(b"\0"))
            except OSError:
                continue
    return found
