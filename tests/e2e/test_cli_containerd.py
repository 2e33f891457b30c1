"""`aos` with agents in containerd, as a person uses it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from e2e.test_network import LISTEN, reached, read, script
from fix_network import HOST, METADATA, PRIVATE, PUBLIC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_containerd import Containerd
    from fix_installation import Installation
    from fix_network import World

pytestmark = [pytest.mark.root, pytest.mark.backends]


def configured(aos: Installation, address: str) -> Installation:
    config = aos.root.parent / "config.toml"
    config.write_text(f'[runtime]\ndefault = "containerd"\n[containerd]\naddress = "{address}"\n')
    return replace(aos, environ={**aos.environ, "AOS_CONFIG": str(config)})


@pytest.fixture(params=["containerd1", "containerd2"])
def there(request: pytest.FixtureRequest, aos: Installation) -> Iterator[tuple[Installation, Containerd]]:
    containerd: Containerd = request.getfixturevalue(request.param)
    ours = configured(aos, containerd.address)
    yield ours, containerd
    ours.end()
    assert containerd.ctr("containers", "list", "--quiet").split() == []


def test_an_agent_is_run_and_managed_as_any_other(there: tuple[Installation, Containerd]) -> None:
    aos, containerd = there
    aos("run", "--rm", "busybox:1", "-c", "echo out; echo err >&2; exit 7", check=7)
    assert aos("run", "--rm", "-i", "busybox:1", "-c", "cat; echo end", input="in\n").out == "in\nend\n"
    aos("run", "-d", "--name", "a", "busybox:1", "-c", "echo ready; exec sleep 1000")
    assert aos("inspect", "a", "-o", "json").json[0]["runtime"] == "containerd"
    assert len(containerd.ctr("tasks", "list", "--quiet").split()) == 1
    assert aos("exec", "a", "sh", "-c", "echo inside; exit 3", check=3).out == "inside\n"
    assert aos("exec", "-i", "a", "cat", input="through\n").out == "through\n"
    aos.kill_daemon()
    assert aos("exec", "a", "hostname").out == "a\n"
    assert "ready" in aos("logs", "a").out
    aos("pause", "a")
    aos("unpause", "a")
    aos("kill", "a")
    assert aos("wait", "a", check=False).code in (0, 137)
    aos("rm", "a")


def test_an_exit_while_the_daemon_was_dead_has_its_code(there: tuple[Installation, Containerd]) -> None:
    aos, _ = there
    aos("run", "-d", "--name", "a", "busybox:1", "-c", "sleep 1; exit 5")
    aos.kill_daemon()
    assert aos("wait", "a").out.split() == ["5"]


def test_without_containerd_everything_else_works(aos: Installation, tmp_path: Path) -> None:
    without = configured(aos, str(tmp_path / "nobody.sock"))
    said = without("run", "--rm", "busybox:1", "-c", "true", check=125).err
    assert "there is no socket" in said and "[containerd] address" in said
    assert without("run", "--rm", "--runtime", "oci", "busybox:1", "-c", "echo fine").out == "fine\n"
    found = {one["name"]: one for one in without("runtimes", "-o", "json").json}
    assert not found["containerd"]["usable"] and not found["kata"]["usable"]
    assert "there is no socket" in found["containerd"]["problem"]


def test_a_daemon_starts_while_containerd_is_dead(there: tuple[Installation, Containerd]) -> None:
    aos, containerd = there
    aos("run", "-d", "--name", "b", "busybox:1", "-c", "exec sleep 1000")
    containerd.kill()
    try:
        aos.kill_daemon()
        assert [agent["name"] for agent in aos("ps", "-o", "json").json] == ["b"]
        assert aos("run", "--rm", "--runtime", "oci", "busybox:1", "-c", "echo fine").out == "fine\n"
        assert "containerd" in aos("exec", "b", "true", check=False).err
    finally:
        containerd.start()
    assert aos("exec", "b", "hostname").out == "b\n"
    aos("kill", "b")
    assert aos("wait", "b").out.split() == ["137"]


# Networks, with what is outside of the host (fix_network.py).


@pytest.fixture(params=["containerd1", "containerd2"])
def connected(request: pytest.FixtureRequest, world: World) -> Installation:
    containerd: Containerd = request.getfixturevalue(request.param)
    return configured(world.installation, containerd.address)


def test_the_policy_of_a_bridge_holds(connected: Installation, world: World) -> None:
    targets = script([(PRIVATE, 80), (PRIVATE, 81), (PUBLIC, 80), (METADATA, 80)])
    words = ("--rm", "--network", "bridge", "--egress", f"allow {PRIVATE} tcp 80", "busybox:1", "-c", targets)
    assert reached(connected("run", *words).out) == {(PRIVATE, 80)}
    assert connected("network", "ls", "-o", "json").json["sandboxes"] == []  # what was promised is taken back


def test_a_published_port_a_shared_network_and_a_dead_daemon(connected: Installation, world: World) -> None:
    aos = connected
    aos("run", "-d", "--name", "server", "-p", "8080:80", "busybox:1", "-c", LISTEN)
    assert world.from_outside(lambda: read(HOST, 8080)) == "hello from server"
    aos.kill_daemon()
    assert world.from_outside(lambda: read(HOST, 8080)) == "hello from server"
    [there] = aos("network", "ls", "-o", "json").json["sandboxes"]
    assert str(there["address"]) in aos("exec", "server", "ip", "address").out
    shared = (
        "--rm",
        "--network",
        "agent:server",
        "busybox:1",
        "-c",
        "wget -q -O - http://127.0.0.1/; ip address",
    )
    said = aos("run", *shared).out
    assert "hello from server" in said and there["address"] in said
    aos("rm", "-f", "server")
    assert "x" in aos("run", "--network", "agent:x", "busybox:1", check=125).err


def test_user_ids_of_its_own_and_a_network(connected: Installation, world: World, tmp_path: Path) -> None:
    """The sandbox's root may listen on a low port; files go in and out with the owners that they have inside."""
    aos = connected
    bridged = ("--userns", "private", "--network", "bridge", "-p", "8080:80")
    aos("run", "-d", "--name", "one", *bridged, "-v", f"{tmp_path}:/x", "busybox:1", "-c", LISTEN)
    assert world.from_outside(lambda: read(HOST, 8080)) == "hello from one"
    targets = script([(PUBLIC, 80), (PRIVATE, 80), (METADATA, 80)])
    assert reached(aos("exec", "one", "sh", "-c", targets).out) == {(PUBLIC, 80)}
    assert aos("exec", "one", "cat", "/proc/self/uid_map").out.split()[1] != "0"
    aos("exec", "one", "sh", "-c", "echo theirs >/x/new")
    assert (tmp_path / "new").stat().st_uid == 0
    os.chown(tmp_path / "new", 7, 8)
    aos("cp", "-a", tmp_path / "new", "one:/in")
    assert aos("exec", "one", "stat", "-c", "%u %g", "/in").out.split() == ["7", "8"]
    aos("rm", "-f", "one")
