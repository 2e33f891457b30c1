"""Links, addresses and routes: what AOS says to rtnetlink. Numbers are from include/uapi/linux/{rtnetlink,if_link}.h.

A sandbox's end of its link has one address with a prefix of 32 bits, and reaches all else by way of the gateway:
so also what goes from one sandbox to another passes the host's firewall, which a bridge alone would go around.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from aos.runtime.network.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    nest,
    text,
    u32,
)

__all__ = [
    "INSIDE",
    "Route",
    "addresses",
    "configure_inside",
    "delete_link",
    "enter_namespace",
    "index_of",
    "join_bridge",
    "make_bridge",
    "make_veth",
    "new_namespace",
    "open_route",
    "routes",
    "shape",
]

INSIDE = "eth0"
"""What a sandbox calls its end."""

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE, _NEWQDISC = (
    16,
    17,
    18,
    20,
    22,
    24,
    26,
    36,
)
_IFINFO = struct.Struct("=BxHiII")
_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 10, 18, 28
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BRIDGE_SNOOPING = 23
_PORT_ISOLATED = 33
_ROOT = 0xFFFFFFFF
_IFA_LOCAL = 2
_CLONE_NEWNET = 0x40000000
_LOOPBACK, _FIRST_INDEX = 1, 2
"""Of the links of a sandbox's namespace. Knowing them saves questions, each of which waits for a lock of the kernel that
the end of any namespace on the host holds for milliseconds."""
_NANOSECONDS = 1_000_000_000


def open_route() -> Netlink:
    return Netlink(socket.NETLINK_ROUTE)


def make_bridge(route: Netlink, name: str, gateway: IPv4Address, pool: IPv4Network) -> tuple[int, bool]:
    """Make the bridge, up, with the gateway's address. Its index; and False when it was there, and is completed."""
    mac = b"\x02\xa0" + gateway.packed  # fixed: else it is that of whichever port has the lowest
    kind = nest(
        _IFLA_LINKINFO, text(_INFO_KIND, "bridge"), nest(_INFO_DATA, attribute(_BRIDGE_SNOOPING, b"\0"))
    )
    body = _ifinfo(up=False) + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, mac) + kind
    made = True
    try:
        route.tell(Message(_NEWLINK, ACK | CREATE | EXCLUSIVE, body))
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        made = False
    index = index_of(route, name)
    if index is None:
        raise NetlinkError(errno.ENODEV, f"the bridge {name} went away", 0)
    try:
        route.tell(_address(index, gateway, pool.prefixlen, pool.broadcast_address))
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
    route.tell(Message(_NEWLINK, ACK, _ifinfo(index=index)))
    return index, made


def make_veth(route: Netlink, bridge: int, name: str, address: IPv4Address, namespace: int) -> None:
    """A link from the bridge with this index, where it is called `name`, into the namespace behind the descriptor, which
    holds nothing else; our end is up. NetlinkError EINVAL, EOPNOTSUPP: the bridge is gone."""
    peer = nest(
        _VETH_PEER,
        _ifinfo(up=False),  # a veth cannot be brought up before both ends exist
        text(_IFLA_IFNAME, INSIDE),
        u32(_IFLA_NET_NS_FD, namespace),
        attribute(_IFLA_ADDRESS, b"\x02\xa0" + address.packed),
    )
    veth = nest(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), nest(_INFO_DATA, peer))
    ours = _ifinfo() + text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, bridge)
    route.tell(Message(_NEWLINK, ACK | CREATE | EXCLUSIVE, ours + veth), _isolated(name))


def join_bridge(route: Netlink, bridge: str, name: str) -> None:
    """Make an existing link a port of the bridge (again)."""
    master = index_of(route, bridge)
    body = _ifinfo() + text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, master or 0)
    route.tell(Message(_NEWLINK, ACK, body), _isolated(name))


def configure_inside(inside: Netlink, address: IPv4Address, gateway: IPv4Address) -> None:
    """In the sandbox's namespace: loopback, its address, and the way out."""
    try:
        _configure(inside, _FIRST_INDEX, address, gateway)
    except NetlinkError as error:
        index = index_of(inside, INSIDE)
        if error.errno != errno.ENODEV or index is None:
            raise
        _configure(inside, index, address, gateway)  # it is not the first that was tried


def _configure(inside: Netlink, index: int, address: IPv4Address, gateway: IPv4Address) -> None:
    on_link = _route(index, IPv4Network((gateway, 32)), None)
    out = _route(index, IPv4Network("0.0.0.0/0"), gateway)
    inside.tell(
        Message(_NEWLINK, ACK, _ifinfo(index=_LOOPBACK)),
        Message(_NEWLINK, ACK, _ifinfo(index=index)),
        _address(index, address, 32, None),
        on_link,
        out,
    )


def shape(route: Netlink, name: str, bits_per_second: int) -> None:
    """Send through this end of a link at most so much: a token bucket (tc-tbf(8)), with 50 ms of it as its depth.

    Numbers are from include/uapi/linux/pkt_sched.h; the times that its struct speaks of are ticks of 64 ns."""
    index = index_of(route, name)
    rate = max(1, bits_per_second // 8)
    burst = max(rate // 20, 16_384)  # bytes; a packet that was put together to be cut up again fits
    limit = burst + max(rate // 5, 65_536)  # what waits: 200 ms
    ticks = burst * _NANOSECONDS // rate >> 6
    ethernet = 1
    spec = struct.pack("=BBHhHI", 0, ethernet, 0, 0, 0, min(rate, 0xFFFFFFFF))
    parameters = spec + bytes(12) + struct.pack("=III", limit, min(ticks, 0xFFFFFFFF), 0)
    options = [attribute(1, parameters), u32(6, burst)]
    if rate > 0xFFFFFFFF:
        options.append(attribute(4, struct.pack("=Q", rate)))
    body = struct.pack("=BxxxiIII", 0, index or 0, 0, _ROOT, 0)
    body += text(1, "tbf") + nest(2, *options)
    route.tell(Message(_NEWQDISC, ACK | CREATE | EXCLUSIVE, body))


def delete_link(route: Netlink, name: str) -> None:
    """One that may be gone."""
    try:
        route.tell(Message(_DELLINK, ACK, _ifinfo(up=False) + text(_IFLA_IFNAME, name)))
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise


def index_of(route: Netlink, name: str) -> int | None:
    try:
        found = route.ask(Message(_GETLINK, 0, _ifinfo(up=False) + text(_IFLA_IFNAME, name)))
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    return int(_IFINFO.unpack_from(found)[2])


@dataclass(frozen=True, slots=True)
class Route:
    to: IPv4Network
    index: int | None
    """Of the link that it leaves by."""


def routes(route: Netlink) -> list[Route]:
    """The host's, of all tables, but for the default ones and those of its own addresses."""
    found = []
    for body in route.dump(Message(_GETROUTE, DUMP, struct.pack("=BBBBBBBBI", socket.AF_INET, *bytes(7), 0))):
        length, table = body[1], body[4]
        values = attributes(body[12:])
        if length and table != 255 and 1 in values:  # RTA_DST; 255: RT_TABLE_LOCAL
            index = struct.unpack("=I", values[4])[0] if 4 in values else None  # RTA_OIF
            found.append(Route(IPv4Network((values[1], length)), index))
    return found


def addresses(route: Netlink) -> set[IPv4Address]:
    """Of all links."""
    bodies = route.dump(Message(_GETADDR, DUMP, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)))
    return {IPv4Address(local) for body in bodies if (local := attributes(body[8:]).get(_IFA_LOCAL))}


def new_namespace() -> None:
    """Take the calling thread into a network namespace with nothing in it, for good."""
    _checked(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET))


def enter_namespace(descriptor: int) -> None:
    """Take the calling thread into one that is there, for good."""
    _checked(ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ifinfo(index: int = 0, *, up: bool = True) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, index, _UP if up else 0, _UP if up else 0)


def _isolated(name: str) -> Message:
    """A port that talks to the bridge itself alone, never to another port."""
    info = nest(
        _IFLA_LINKINFO,
        text(_INFO_SLAVE_KIND, "bridge"),
        nest(_INFO_SLAVE_DATA, attribute(_PORT_ISOLATED, b"\1")),
    )
    return Message(_NEWLINK, ACK, _ifinfo(up=False) + text(_IFLA_IFNAME, name) + info)


def _address(index: int, address: IPv4Address, length: int, broadcast: IPv4Address | None) -> Message:
    body = struct.pack("=BBBBI", socket.AF_INET, length, 0, 0, index)
    body += attribute(1, address.packed) + attribute(2, address.packed)
    if broadcast is not None:
        body += attribute(4, broadcast.packed)
    return Message(_NEWADDR, ACK | CREATE | EXCLUSIVE, body)


def _route(index: int, to: IPv4Network, gateway: IPv4Address | None) -> Message:
    scope = 253 if gateway is None else 0  # on the link; anywhere
    main, static, unicast = 254, 4, 1
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, to.prefixlen, 0, 0, main, static, scope, unicast, 0)
    if to.prefixlen:
        body += attribute(1, to.network_address.packed)
    if gateway is not None:
        body += attribute(5, gateway.packed)
    return Message(_NEWROUTE, ACK | CREATE | EXCLUSIVE, body + u32(4, index))
