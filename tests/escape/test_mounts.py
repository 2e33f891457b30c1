"""Nothing of the host comes in by what is mounted: sockets of its daemons, links that lead a mount away.

Each control mounts the same where nobody looks: it shows that the attempt is worth refusing.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aos.compose.runtimes import bridge_network
from aos.errors import FailedPrecondition, PermissionDenied
from aos.ids import SandboxId
from aos.runtime.backends.gvisor import Runsc
from aos.runtime.backends.oci import Runc
from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
from aos.runtime.policy import Policy
from aos.runtime.spec import Confinement, Mount, ProcessSpec
from escape.loose import Host, a_host
from fix_installation import requires, requires_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aos.runtime.backends.supervised.tool import Tool
    from aos.runtime.spec import AgentSpec

pytestmark = [pytest.mark.root, pytest.mark.backends]

_ASK = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/asked'); print(s.recv(99).decode())"


@pytest.fixture(scope="module")
def host(busybox_root: Path) -> Iterator[Host]:
    requires_root()
    with a_host(busybox_root) as made:
        yield made


class Naive(Runc):
    """What is mounted inside of a volume is left to the runtime, which follows links there."""

    def __init__(self, target: str, source: Path) -> None:
        super().__init__("runc")
        self._mount = {"destination": target, "type": "bind", "source": str(source), "options": ["rbind"]}

    def configure(self, config: dict[str, Any], spec: AgentSpec) -> None:
        config["mounts"].append(self._mount)


def _said(host: Host, tool: Tool, args: tuple[str, ...], *mounts: Mount, own_ids: bool = False) -> str:
    config = SupervisedConfig(host.config.root, host.config.state, host.config.installation)
    runtime = SupervisedRuntime(config, tool, host.content, bridge_network(host.config))
    spec = replace(
        host.spec,
        process=ProcessSpec(args),
        mounts=(*host.spec.mounts, *mounts),
        confinement=Confinement(users="private" if own_ids else "host"),
    )

    async def run() -> str:
        id = SandboxId(f"escape-{secrets.token_hex(6)}")
        try:
            await runtime.create(id, spec)
            await runtime.start(id)
            await asyncio.wait_for(runtime.wait(id), 60)
            return (await runtime.logs(id)).read_text()
        finally:
            await runtime.delete(id, force=True)

    return asyncio.run(run())


def test_no_socket_of_a_daemon_comes_in(host: Host) -> None:
    path = host.home / "daemon.sock"
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        daemon.listen()
        daemon.settimeout(30)
        asked = Mount("bind", "/asked", path)
        with pytest.raises(PermissionDenied) as refused:
            Policy().check(replace(host.spec, mounts=(asked,)), host.home / "volumes")
        assert refused.value.code == "mount-refused"

        # The control: an administrator has allowed it.
        allowed = Policy(mounts=(path,)).check(replace(host.spec, mounts=(asked,)), host.home / "volumes")

        def answer() -> None:
            with daemon.accept()[0] as connection:
                connection.sendall(b"the daemon answers")

        answering = threading.Thread(target=answer)
        answering.start()
        python = f"{sys.base_prefix}/bin/python3"
        assert "the daemon answers" in _said(host, Runc("runc"), (python, "-IS", "-c", _ASK), *allowed.mounts)
        answering.join()


@pytest.mark.parametrize("place", ["/etc", "../../../../etc", "/"])
@pytest.mark.parametrize("backend", ["runc", "runc-own-ids", "gvisor"])
def test_no_link_in_a_volume_leads_a_mount_away(host: Host, backend: str, place: str, tmp_path: Path) -> None:
    if backend == "gvisor":
        requires("runsc")
    tool: Tool = Runsc() if backend == "gvisor" else Runc("runc")
    volume, other = _with_a_link(tmp_path, place)
    with pytest.raises(FailedPrecondition) as refused:
        _said(host, tool, ("cat", "/etc/passwd"), volume, other, own_ids=backend == "runc-own-ids")
    assert refused.value.code == "mount-failed"


def test_a_link_leads_a_mount_away_where_the_runtime_mounts(host: Host, tmp_path: Path) -> None:
    """The control."""
    volume, other = _with_a_link(tmp_path, "/etc")
    assert other.source is not None
    said = _said(host, Naive(other.target, other.source), ("cat", "/etc/passwd"), volume)
    assert "forged" in said


def _with_a_link(directory: Path, place: str) -> tuple[Mount, Mount]:
    volume, other = directory / "volume", directory / "other"
    volume.mkdir()
    other.mkdir()
    (volume / "link").symlink_to(place)
    (other / "passwd").write_text("forged\n")
    return Mount("bind", "/volume", volume), Mount("bind", "/volume/link", other)
