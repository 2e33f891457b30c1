"""Tools that are missing, old, hung or talk nonsense: a clear error in time, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.compose.runtimes import bridge_network
from aos.config import Config
from aos.content.store import ContentStore
from aos.errors import AosError, FailedPrecondition, Internal, Unavailable
from aos.ids import SandboxId
from aos.package import load_package
from aos.registry.local import LocalRegistry
from aos.runtime.backends.gvisor import Runsc
from aos.runtime.backends.oci import Runc
from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
from aos.runtime.backends.supervised.record import process_start
from aos.runtime.spec import AgentSpec, ProcessSpec, Rootfs
from fix_installation import requires_root
from traces import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.oci.layer import Layer

pytestmark = pytest.mark.root

ID = SandboxId("tools-1")


class Place:
    def __init__(self, home: Path, layers: tuple[Layer, ...], content: ContentStore) -> None:
        self.home, self.layers, self.content = home, layers, content
        self.config = Config(home / "root", home / "state")
        self.supervised = SupervisedConfig(
            self.config.root,
            self.config.state,
            self.config.installation,
            create_seconds=0.5,
            tool_seconds=0.5,
        )

    def tool(self, name: str, script: str) -> str:
        path = self.home / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def runtime(self, runc: str = "runc", conmon: str = "conmon") -> SupervisedRuntime:
        return SupervisedRuntime(
            replace(self.supervised, conmon=conmon), Runc(runc), self.content, bridge_network(self.config)
        )

    def sleeper(self) -> AgentSpec:
        return AgentSpec(ProcessSpec(("sleep", "1000")), Rootfs(self.layers))


@pytest.fixture
def place(busybox_root: Path) -> Iterator[Place]:
    requires_root()
    home = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))
    shutil.copytree(busybox_root, home / "root", symlinks=True)
    content = ContentStore(home / "root/content")
    digest = LocalRegistry(home / "root/registry", content).resolve("busybox:1")
    made = Place(home, load_package(content.blobs, digest).layers, content)
    before = Traces.of(made.config)
    yield made
    Traces.of(made.config).settle(made.config, before)
    assert list((home / "root/sandboxes").glob("*/*")) == []
    shutil.rmtree(home)


def refusal(runtime: SupervisedRuntime, spec: AgentSpec) -> AosError:
    async def go() -> AosError:
        with pytest.raises(AosError) as refused:
            await runtime.create(ID, spec)
        assert await runtime.list() == []
        return refused.value

    return asyncio.run(asyncio.wait_for(go(), 20))


@pytest.mark.parametrize(("runc", "conmon"), [("/no/such/runc", "conmon"), ("runc", "no-such-conmon")])
def test_a_tool_that_is_not_installed(place: Place, runc: str, conmon: str) -> None:
    refused = refusal(place.runtime(runc, conmon), place.sleeper())
    assert refused.code == "runtime-missing"
    assert refused.hint and "apt-get install" in refused.hint


def test_a_tool_for_another_machine(place: Place) -> None:
    path = place.home / "conmon"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf7\x00" + bytes(200))
    path.chmod(0o755)
    refused = refusal(place.runtime(conmon=str(path)), place.sleeper())
    assert (refused.code, refused.message) == (
        "runtime-missing",
        f"{path} cannot be started: Exec format error",
    )


@pytest.mark.parametrize(
    ("name", "says", "message"),
    [
        ("runc", "echo runc version 1.0.0-rc10", "is version 1.0.0, and 1.1 or later is needed"),
        ("crun", "echo crun version 0.19.1", "is version 0.19.1, and 1.0 or later is needed"),
        ("youki", "echo youki version 0.0.4", "is version 0.0.4, and 0.3 or later is needed"),
        ("runc", "echo oops >&2; exit 3", "--version ended with 3: oops"),
        ("runc", "true", "--version ended with 0"),
    ],
)
def test_a_version_that_is_too_old(place: Place, name: str, says: str, message: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        asyncio.run(place.runtime(place.tool(name, says)).info())
    assert refused.value.code == "runtime-version"
    assert message in refused.value.message


def test_an_old_gvisor_and_one_that_does_not_know_its_version(place: Place) -> None:
    def info(says: str) -> str:
        tool = Runsc(place.tool("runsc", says))
        return asyncio.run(
            SupervisedRuntime(place.supervised, tool, place.content, bridge_network(place.config)).info()
        ).version

    assert info("echo runsc version VERSION_MISSING; echo spec: 1.1.0") == "runsc version VERSION_MISSING"
    assert info("echo runsc version release-20260905.0") == "runsc version release-20260905.0"
    with pytest.raises(FailedPrecondition, match="20240101 or later is needed"):
        info("echo runsc version release-20220101.0")


def test_a_runtime_that_hangs_while_it_creates(place: Place) -> None:
    """It and what it started are gone afterwards; removing is not held up by it either."""
    hangs = place.tool("runc", f"echo $$ >> {place.home}/pids; sleep 1000 & wait")
    refused = refusal(place.runtime(hangs), place.sleeper())
    assert isinstance(refused, Unavailable)
    assert (refused.code, refused.message) == ("tool-timeout", "the OCI runtime did not answer within 0.5 s")
    for pid in (place.home / "pids").read_text().split():
        assert process_start(int(pid)) is None  # a zombie is nobody's harm


@pytest.mark.parametrize("verb", ["pause", "exec"])
def test_a_runtime_that_hangs_later(place: Place, verb: str) -> None:
    """The sandbox is what it was, and can be removed."""
    hangs = place.tool(
        "runc", f'case " $* " in *" {verb} "*) exec sleep 1000 ;; *) exec {shutil.which("runc")} "$@" ;; esac'
    )

    async def go() -> None:
        runtime = place.runtime(hangs)
        await runtime.create(ID, place.sleeper())
        await runtime.start(ID)
        with pytest.raises(Unavailable) as refused:
            if verb == "pause":
                await runtime.pause(ID)
            else:
                made = await runtime.exec(ID, ProcessSpec(("true",)), attach=False)
                await runtime.start_exec(ID, made.id)
        assert refused.value.code == "tool-timeout"
        [sandbox] = await runtime.list()
        assert sandbox.state.value == "running"
        await runtime.delete(ID, force=True)

    asyncio.run(asyncio.wait_for(go(), 30))


def test_a_runtime_that_talks_nonsense(place: Place) -> None:
    refused = refusal(place.runtime(place.tool("runc", "echo gibberish >&2; exit 1")), place.sleeper())
    assert isinstance(refused, Internal)
    assert (refused.code, "gibberish" in refused.message) == ("runtime-failed", True)


def test_a_conmon_that_ends_without_a_word(place: Place) -> None:
    refused = refusal(place.runtime(conmon=place.tool("conmon", "exit 1")), place.sleeper())
    assert refused.code == "runtime-failed"
    assert "conmon ended without a word" in refused.message


def test_a_sandbox_keeps_the_runtime_that_made_it(place: Place) -> None:
    """The configuration may name another by now: what runc holds is runc's to the end."""

    async def go() -> None:
        await place.runtime("runc").create(ID, place.sleeper())
        other = place.runtime(place.tool("crun", "echo not mine >&2; exit 1"))
        await other.start(ID)
        await other.pause(ID)
        await other.resume(ID)
        await other.delete(ID, force=True)

    asyncio.run(asyncio.wait_for(go(), 20))


@pytest.mark.parametrize("at", [0.0, 4e9])
def test_a_clock_that_jumps(place: Place, at: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit is an exit, whatever date its file has; no time limit is counted on the wall's clock."""

    async def go() -> None:
        runtime = place.runtime()
        await runtime.create(ID, replace(place.sleeper(), process=ProcessSpec(("sh", "-c", "exit 7"))))
        monkeypatch.setattr("time.time", lambda: at)
        await runtime.start(ID)
        exit = place.config.root / "sandboxes/oci" / ID / "exit" / ID
        while not await asyncio.to_thread(exit.exists):
            await asyncio.sleep(0.01)
        os.utime(exit, (at, at))
        assert (await place.runtime().wait(ID)).code == 7
        await runtime.delete(ID)

    asyncio.run(asyncio.wait_for(go(), 20))
