"""Addresses, leases, resolvers, refusals, netlink messages: what needs no kernel to be right."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from aos.node.network import Tally
from aos.runtime.network.addresses import choose_pool, gateway_of, next_address, parse_pool
from aos.runtime.network.lease import Lease, Leases
from aos.runtime.network.netlink import attribute, attributes, nest
from aos.runtime.network.resolvers import read_resolvers
from aos.runtime.network.rules import parse_egress, parse_port
from aos.runtime.network.watch import Refusal, read_refusal
from aos.runtime.spec import Bandwidth

if TYPE_CHECKING:
    from pathlib import Path

POOL = IPv4Network("10.99.0.0/29")


def lease(address: str) -> Lease:
    rules = parse_egress(["allow 10.0.0.0/8 tcp 80-90", "deny any"])
    ports = (parse_port("127.0.0.1:8080:80"),)
    return Lease(
        IPv4Address(address), "aosv0", rules, (IPv4Address("10.0.0.2"),), ports, Bandwidth(8000, None)
    )


def test_addresses_are_given_out_in_turn_and_again_as_late_as_can_be() -> None:
    leased: set[IPv4Address] = set()
    last = None
    for _ in range(5):
        last = next_address(POOL, last, leased)
        leased.add(last)
    assert leased == {POOL[number] for number in range(2, 7)}
    with pytest.raises(ResourceExhausted, match="all 5 addresses") as caught:
        next_address(POOL, last, leased)
    assert caught.value.code == "network-pool-exhausted"
    leased.remove(POOL[3])
    assert next_address(POOL, last, leased) == POOL[3]
    assert next_address(POOL, POOL[3], set()) == POOL[4]
    assert next_address(POOL, IPv4Address("192.0.2.1"), set()) == POOL[2], "of another pool"


@given(
    st.lists(st.integers(0, 255), max_size=40, unique=True),
    st.text("0123456789abcdef", min_size=8, max_size=8),
)
def test_a_pool_overlaps_no_route_of_the_host(taken: list[int], installation: str) -> None:
    routes = [IPv4Network("0.0.0.0/0"), *(IPv4Network(f"10.{number}.0.0/16") for number in taken)]
    pool = choose_pool(installation, None, routes)
    assert not any(map(pool.overlaps, routes[1:]))
    assert pool == choose_pool(installation, None, routes)
    assert gateway_of(pool) in pool


def test_a_pool_that_is_taken_or_none_says_so() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        choose_pool("a", POOL, [IPv4Network("10.99.0.0/16")])
    assert caught.value.code == "network-pool-taken"
    with pytest.raises(FailedPrecondition):
        choose_pool("a", None, [IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12")])
    for text in ("10.0.0.1/16", "x", "10.0.0.0/30", "0.0.0.0/0", "fd00::/64"):
        with pytest.raises(InvalidArgument):
            parse_pool(text)


def test_leases_live_and_end_with_their_sandboxes(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "network")
    first, second, gone = (tmp_path / name for name in ("first", "second", "gone"))
    for directory in (first, second, gone):
        directory.mkdir()
    with leases.held():
        for number, directory in enumerate((first, second, gone), 2):
            leases.take(lease(str(POOL[number])), directory)
        assert leases.last() == POOL[4]
    assert Lease.read(first) == lease(str(POOL[2]))
    (second / "status.json").write_text("{}")
    (gone / "network.json").unlink()
    gone.rmdir()
    assert {address: found is not None for address, _, found in leases.all()} == {
        POOL[2]: True,
        POOL[3]: False,
        POOL[4]: False,
    }
    assert not leases.give_back(POOL[2], second), "another's"
    assert leases.give_back(POOL[2], first)
    assert not leases.give_back(POOL[2], first), "again"
    (first / "network.json").write_text('{"address": "10.99.0.2"')
    assert Lease.read(first) is None


def test_resolvers_that_a_sandbox_cannot_reach_are_left_out() -> None:
    text = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fd00::1\nnameserver\noptions edns0\nsearch a.b\n"
    found = read_resolvers(text)
    assert found.addresses == (IPv4Address("10.0.0.2"),)
    assert found.text() == "nameserver 10.0.0.2\noptions edns0\nsearch a.b\n"
    assert read_resolvers("nameserver 127.0.0.53\n").addresses == ()


def packet(protocol: int = 6, to: str = "169.254.169.254", port: int = 80) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, protocol, 0)
    return (
        header
        + IPv4Address("10.99.0.2").packed
        + IPv4Address(to).packed
        + struct.pack("!HHI", 40000, port, 0)
    )


def message(data: bytes, prefix: bytes = b"abc-1\0") -> bytes:
    return bytes(4) + attribute(10, prefix) + attribute(9, data)


def test_a_refused_packet_is_read() -> None:
    assert read_refusal(message(packet())) == Refusal("abc-1", "tcp", "169.254.169.254", 80)
    assert read_refusal(message(packet(17, "10.0.0.2", 53))) == Refusal("abc-1", "udp", "10.0.0.2", 53)
    assert read_refusal(message(packet(1))) == Refusal("abc-1", "icmp", "169.254.169.254", None)
    assert read_refusal(message(packet(47))) == Refusal("abc-1", "47", "169.254.169.254", None)
    assert read_refusal(message(packet()[:20])) == Refusal("abc-1", "tcp", "169.254.169.254", None)


@given(st.binary(max_size=200))
def test_no_bytes_from_the_kernel_make_a_traceback(data: bytes) -> None:
    read_refusal(data)
    read_refusal(message(data))
    attributes(data)


def test_attributes_are_aligned_and_nested() -> None:
    data = attribute(1, b"abc") + nest(2, attribute(3, b"x"))
    assert len(data) % 4 == 0
    assert attributes(data)[1] == b"abc"
    assert attributes(attributes(data)[2])[3] == b"x"


def test_refusals_are_recorded_once_a_destination_and_counted() -> None:
    tally, refusal = Tally(), Refusal("abc-1", "tcp", "10.0.0.1", 80)
    assert tally.note("a", refusal, 0.0) == 1
    assert [tally.note("a", refusal, second) for second in (1.0, 2.0, 59.0)] == [0, 0, 0]
    assert tally.note("b", refusal, 2.0) == 1, "another agent"
    assert tally.note("a", refusal, 60.5) == 4
    scan = [tally.note("a", Refusal("abc-1", "tcp", "10.0.0.1", port), 61.0) for port in range(1000, 1100)]
    assert sum(scan) == 29, "a scan does not fill the journal"
