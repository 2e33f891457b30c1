"""BridgeNetwork against a kernel, in a network namespace of the test: what a daemon that was killed leaves for the next."""

from __future__ import annotations

import os
import subprocess
import threading
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from aos.runtime.network import links, nftables
from aos.runtime.network.bridge import BridgeConfig, BridgeNetwork
from aos.runtime.network.examine import examine_network
from aos.runtime.network.lease import Lease
from aos.runtime.spec import NetworkSpec, Port
from fix_installation import requires, requires_root
from fix_network import in_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Inside = Callable[[Callable[[], None]], None]
    Make = Callable[[Path], BridgeNetwork]

pytestmark = pytest.mark.root

PUBLISHED = NetworkSpec("bridge", ports=(Port(80, "tcp", 8080),))


@pytest.fixture
def inside() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run something in an empty network namespace."""
    requires_root()
    requires("ip")
    name = f"test-b{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield lambda work: in_namespace(f"/run/netns/{name}", work)
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def networks() -> Iterator[Callable[[Path], BridgeNetwork]]:
    """Each call is another process's."""
    made: list[BridgeNetwork] = []

    def make(directory: Path) -> BridgeNetwork:
        made.append(BridgeNetwork(BridgeConfig("aos-test", directory / "network")))
        return made[-1]

    yield make
    for one in made:
        one.close()


def connect(network: BridgeNetwork, directory: Path, spec: NetworkSpec = PUBLISHED) -> Lease:
    """As making.py does it; the namespace goes when this returns."""
    directory.mkdir()
    network.reserve(directory, spec)
    errors: list[BaseException] = []

    def parent() -> None:
        try:
            inside = network.enter(directory)
            inside.connect()
            inside.close()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=parent)
    thread.start()
    thread.join()
    assert not errors, errors
    lease = Lease.read(directory)
    assert lease is not None
    return lease


def test_a_port_of_a_sandbox_that_has_ended_is_free_also_when_nobody_gave_it_back(
    inside: Inside, networks: Make, tmp_path: Path
) -> None:
    def work() -> None:
        network = networks(tmp_path)
        first = connect(network, tmp_path / "first")
        (tmp_path / "first/status.json").write_text("{}")
        second = connect(network, tmp_path / "second")
        assert second.address != first.address
        assert [id for id, _ in network.facts().leases] == ["second"]

    inside(work)


def test_the_last_lease_takes_bridge_and_table_along(inside: Inside, networks: Make, tmp_path: Path) -> None:
    def work() -> None:
        network = networks(tmp_path)
        connect(network, tmp_path / "only")
        with links.open_route() as route, nftables.open_netfilter() as netfilter:
            assert links.index_of(route, "aos-test") is not None
            assert nftables.tables(netfilter) == {"aos_test"}
            networks(tmp_path).settle()  # of another process: it lives, so all stays
            assert nftables.tables(netfilter) == {"aos_test"}
            network.release(tmp_path / "only")
            network.release(tmp_path / "only")
            network.settle()
            assert links.index_of(route, "aos-test") is None
            assert nftables.tables(netfilter) == set()
        again = connect(network, tmp_path / "again")
        assert again.address == IPv4Address(int(Lease.read(tmp_path / "only").address) + 1)  # type: ignore[union-attr]

    inside(work)


def test_threads_and_processes_take_turns(inside: Inside, networks: Make, tmp_path: Path) -> None:
    def work() -> None:
        both = [networks(tmp_path), networks(tmp_path)]
        found: list[Lease] = []

        def one(number: int) -> None:
            found.append(connect(both[number % 2], tmp_path / f"s{number}", NetworkSpec("bridge")))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({lease.address for lease in found}) == 16
        assert len(both[0].facts().leases) == 16

    inside(work)


FOREIGN = (
    ("ip filter", "FORWARD", "forward", "drop"),
    ("ip filter", "INPUT", "input", "drop"),
    ("inet aos_other", "forward", "forward", "drop"),
    ("inet mild", "forward", "forward", "accept"),
)


def test_what_would_keep_agents_from_networks_is_found_and_nothing_is_made(
    inside: Inside, networks: Make, tmp_path: Path
) -> None:
    requires("nft")

    def work() -> None:
        found = examine_network(networks(tmp_path))
        assert (found.kernel, found.taken, found.drops) == ("", None, ())
        with links.open_route() as route, nftables.open_netfilter() as netfilter:
            assert nftables.tables(netfilter) == set()
            assert links.index_of(route, "aos-doctor") is None
        assert not (tmp_path / "network").exists()
        for table, chain, hook, policy in FOREIGN:
            subprocess.run(["nft", f"add table {table}"], check=True)
            base = f"{{ type filter hook {hook} priority 0; policy {policy}; }}"
            subprocess.run(["nft", f"add chain {table} {chain} {base}"], check=True)
        assert examine_network(networks(tmp_path)).drops == ("filter FORWARD",)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "route", "add", found.pool, "dev", "lo"], check=True)
        other = BridgeNetwork(BridgeConfig("aos-test", tmp_path / "network", found.pool))
        taken = examine_network(other).taken
        other.close()
        assert taken is not None and taken.code == "network-pool-taken"

    inside(work)
