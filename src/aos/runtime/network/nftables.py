"""nftables as messages: tables, chains, rules, sets and their elements, sent as one batch that holds or does not.

Numbers are from include/uapi/linux/netfilter/nf_tables.h. All is of the family `inet`.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from aos.runtime.network.netlink import (
    ACK,
    CREATE,
    DUMP,
    Message,
    Netlink,
    attribute,
    attributes,
    be16,
    be32,
    nest,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Network

__all__ = [
    "ACCEPT",
    "ADDRESS",
    "DROP",
    "IPV4",
    "MASQUERADE",
    "PORT_AT_KEY",
    "PORT_KEY",
    "REJECT",
    "TABLE_EVENTS",
    "TARGET",
    "add_chain",
    "add_elements",
    "add_map",
    "add_rule",
    "add_set",
    "add_table",
    "but_in",
    "commit",
    "connection_state",
    "delete_chain",
    "delete_elements",
    "delete_rules",
    "delete_table",
    "destination",
    "destination_local",
    "dnat",
    "foreign_drops",
    "from_link",
    "goto",
    "jump",
    "jump_by_source",
    "limited_log",
    "open_netfilter",
    "port_element",
    "port_key",
    "port_target",
    "ports",
    "protocol",
    "source",
    "table_of",
    "tables",
    "to_link",
    "translated",
    "verdict_element",
]

_NETFILTER = 12  # of socket(AF_NETLINK)
_SUBSYSTEM, _BEGIN, _END = 10, 0x10, 0x11
_ANY, _INET, _IP = 0, 1, 2  # families: NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4
(
    _NEWTABLE,
    _GETTABLE,
    _DELTABLE,
    _NEWCHAIN,
    _GETCHAIN,
    _DELCHAIN,
    _NEWRULE,
    _DELRULE,
    _NEWSET,
    _NEWELEM,
    _DELELEM,
    _NEWGEN,
) = (*(0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 14, 15),)
TABLE_EVENTS = frozenset(_SUBSYSTEM << 8 | kind for kind in (0, 2, 3, 5, 6, 8, 9, 11, 12, 14))
"""Types of events of what comes and goes: tables, chains, rules, sets, elements. The first attribute of each is the table's
name."""

HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
ADDRESS, _PROTOCOL, _SERVICE, _VERDICT = 7, 12, 13, 0xFFFFFF00  # nft's types, for those who list the table
PORT_KEY, PORT_AT_KEY = _PROTOCOL << 6 | _SERVICE, (ADDRESS << 6 | _PROTOCOL) << 6 | _SERVICE
TARGET = ADDRESS << 6 | _SERVICE
_INTERVAL, _MAP = 0x4, 0x8
_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17}
_EQUAL, _UNEQUAL, _AT_MOST, _AT_LEAST = 0, 1, 3, 5
_JUMP, _GOTO = -3 & 0xFFFFFFFF, -4 & 0xFFFFFFFF


def open_netfilter(*, groups: Sequence[int] = ()) -> Netlink:
    return Netlink(_NETFILTER, groups=groups)


def commit(netfilter: Netlink, messages: Iterable[Message]) -> None:
    """All of it, or nothing: NetlinkError for what the kernel refuses."""
    begin = Message(_BEGIN, 0, struct.pack("!BBH", 0, 0, _SUBSYSTEM))
    # One acknowledgement is enough, as the batch holds as a whole; errors are told of without being asked for.
    *all_but_last, last = messages
    end = Message(_END, 0, begin.body)
    netfilter.tell(begin, *all_but_last, Message(last.type, last.flags | ACK, last.body), end)


def tables(netfilter: Netlink) -> set[str]:
    return {table_of(body) for body in netfilter.dump(_message(_GETTABLE, DUMP))}


def foreign_drops(netfilter: Netlink, own: str) -> list[str]:
    """Chains through which forwarded IPv4 packets go, and which drop what no rule of theirs accepts: `TABLE CHAIN`. Not
    those in tables whose names begin with `own`."""
    found = []
    for body in netfilter.dump(_message(_GETCHAIN, DUMP, family=_ANY)):
        values, table = attributes(body[4:]), table_of(body)
        if body[0] not in (_INET, _IP) or 4 not in values or table.startswith(own):
            continue  # 4: NFTA_CHAIN_HOOK, which jump targets have not
        hook = struct.unpack("!I", attributes(values[4])[1])[0]
        policy = struct.unpack("!I", values[5])[0] if 5 in values else 1
        if hook == HOOKS["forward"] and policy == 0:
            found.append(f"{table} {values[3].rstrip(bytes(1)).decode(errors='replace')}")
    return found


def table_of(body: bytes) -> str:
    """The table that a message speaks of."""
    return attributes(body[4:]).get(1, b"").rstrip(b"\0").decode(errors="replace")


def add_table(table: str) -> Message:
    return _message(_NEWTABLE, CREATE, text(1, table))


def delete_table(table: str) -> Message:
    return _message(_DELTABLE, 0, text(1, table))


def add_chain(table: str, name: str, kind: str = "", hook: str = "", priority: int = 0) -> Message:
    """With a `kind` (nat, filter) it begins at a hook of the kernel."""
    base = b""
    if kind:
        place = nest(4, be32(1, HOOKS[hook]), be32(2, priority & 0xFFFFFFFF))
        base = place + be32(5, 1) + text(7, kind)
    return _message(_NEWCHAIN, CREATE, text(1, table) + text(3, name) + base)


def delete_chain(table: str, name: str) -> Message:
    return _message(_DELCHAIN, 0, text(1, table) + text(3, name))


def add_rule(table: str, chain: str, *expressions: bytes) -> Message:
    """At the end of its chain."""
    body = text(1, table) + text(2, chain) + nest(4, *expressions)
    return _message(_NEWRULE, CREATE | 0x800, body)


def delete_rules(table: str, chain: str) -> Message:
    """All of a chain."""
    return _message(_DELRULE, 0, text(1, table) + text(2, chain))


def add_set(table: str, name: str, number: int, networks: Iterable[IPv4Network]) -> list[Message]:
    """Networks, none of which overlaps or touches another. `number`: another one for each set of a batch."""
    order = bytes((0, 4)) + struct.pack("=I", 2)  # for nft: keys are in network order
    body = (
        text(1, table) + text(2, name) + be32(3, _INTERVAL) + be32(4, ADDRESS) + be32(5, 4) + be32(10, number)
    )
    elements = []
    for network in networks:
        elements.append(nest(1, nest(1, attribute(1, network.network_address.packed))))
        if (end := int(network.broadcast_address) + 1) < 2**32:
            elements.append(nest(1, nest(1, attribute(1, struct.pack("!I", end))), be32(3, 1)))
    return [_message(_NEWSET, CREATE, body + attribute(13, order)), add_elements(table, name, elements)]


def add_map(table: str, name: str, number: int, key: int, length: int, value: int = _VERDICT) -> Message:
    """From keys of `length` bytes to verdicts, or to addresses with ports."""
    body = text(1, table) + text(2, name) + be32(3, _MAP) + be32(4, key) + be32(5, length)
    body += be32(6, value) + (b"" if value == _VERDICT else be32(7, 8)) + be32(10, number)
    return _message(_NEWSET, CREATE, body)


def add_elements(table: str, name: str, elements: Sequence[bytes]) -> Message:
    return _message(_NEWELEM, CREATE, text(1, table) + text(2, name) + nest(3, *elements))


def delete_elements(table: str, name: str, elements: Sequence[bytes]) -> Message:
    return _message(_DELELEM, 0, text(1, table) + text(2, name) + nest(3, *elements))


def verdict_element(key: bytes, chain: str) -> bytes:
    verdict = nest(2, be32(1, _GOTO), text(2, chain))
    return nest(1, nest(1, attribute(1, key)), nest(2, verdict))


def port_element(key: bytes, target: bytes = b"") -> bytes:
    return nest(1, nest(1, attribute(1, key)), nest(2, attribute(1, target)) if target else b"")


def port_key(protocol: str, port: int) -> bytes:
    """Each part of a key takes four bytes."""
    return bytes((_NUMBERS[protocol], 0, 0, 0)) + struct.pack("!Hxx", port)


def port_target(address: bytes, port: int) -> bytes:
    return address + struct.pack("!Hxx", port)


# What a rule is made of, in the order it is looked at.


def _message(kind: int, flags: int, body: bytes = b"", *, family: int = _INET) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, flags, struct.pack("!BBH", family, 0, 0) + body)


def _expression(name: str, *values: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *values))


def _compare(value: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("cmp", be32(1, 1), be32(2, operation), nest(3, attribute(1, value)))


def _meta(key: int, register: int = 1) -> bytes:
    return _expression("meta", be32(2, key), be32(1, register))


def _payload(base: int, offset: int, length: int, register: int = 1) -> bytes:
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def _masked(mask: bytes) -> bytes:
    zero = nest(5, attribute(1, bytes(len(mask))))
    return _expression(
        "bitwise", be32(1, 1), be32(2, 1), be32(3, len(mask)), nest(4, attribute(1, mask)), zero
    )


def _verdict(code: int, chain: str = "") -> bytes:
    verdict = nest(2, be32(1, code), text(2, chain) if chain else b"")
    return _expression("immediate", be32(1, 0), nest(2, verdict))


_NETWORK, _TRANSPORT = 1, 2
_SOURCE, _DESTINATION = 12, 16
IPV4 = _meta(15) + _compare(b"\2")
ACCEPT, DROP = _verdict(1), _verdict(0)
REJECT = _expression("reject", be32(1, 2), attribute(2, b"\3"))
"""Tell the sender, by ICMP, that it is prohibited: it fails at once."""
MASQUERADE = _expression("masq")


def jump(chain: str) -> bytes:
    return _verdict(_JUMP, chain)


def goto(chain: str) -> bytes:
    return _verdict(_GOTO, chain)


def _name(link: str) -> bytes:
    return link.encode().ljust(16, b"\0")


def from_link(link: str) -> bytes:
    return _meta(6) + _compare(_name(link))


def to_link(link: str, *, other: bool = False) -> bytes:
    return _meta(7) + _compare(_name(link), _UNEQUAL if other else _EQUAL)


def _address(offset: int, network: IPv4Network) -> bytes:
    if network.prefixlen == 0:
        return b""
    masked = b"" if network.prefixlen == 32 else _masked(network.netmask.packed)
    return _payload(_NETWORK, offset, 4) + masked + _compare(network.network_address.packed)


def source(network: IPv4Network) -> bytes:
    return _address(_SOURCE, network)


def destination(network: IPv4Network) -> bytes:
    return _address(_DESTINATION, network)


def but_in(name: str) -> bytes:
    """The destination is not in that set."""
    return _payload(_NETWORK, _DESTINATION, 4) + _expression("lookup", text(1, name), be32(2, 1), be32(5, 1))


def destination_local(*, other: bool = False) -> bytes:
    """The destination is (not) an address of the host."""
    fib = _expression("fib", be32(1, 1), be32(2, 3), be32(3, 2))
    return fib + _compare(struct.pack("=I", 2), _UNEQUAL if other else _EQUAL)


def protocol(name: str) -> bytes:
    return _meta(16) + _compare(bytes((_NUMBERS[name],)))


def ports(first: int, last: int) -> bytes:
    """Of the destination; after `protocol`."""
    port = _payload(_TRANSPORT, 2, 2)
    if first == last:
        return port + _compare(struct.pack("!H", first))
    return port + _compare(struct.pack("!H", first), _AT_LEAST) + _compare(struct.pack("!H", last), _AT_MOST)


def connection_state(*, known: bool = True) -> bytes:
    """It belongs to a connection that was let through before (established, related)."""
    load = _expression("ct", be32(2, 0), be32(1, 1))
    return load + _masked(struct.pack("=I", 2 | 4)) + _compare(bytes(4), _UNEQUAL if known else _EQUAL)


def translated() -> bytes:
    """Its destination was changed by `dnat`."""
    return (
        _expression("ct", be32(2, 2), be32(1, 1))
        + _masked(struct.pack("=I", 32))
        + _compare(bytes(4), _UNEQUAL)
    )


def jump_by_source(name: str) -> bytes:
    """Go on where the map says for this source; when it says nothing, with the next rule."""
    return _payload(_NETWORK, _SOURCE, 4) + _expression("lookup", text(1, name), be32(2, 1), be32(3, 0))


def limited_log(group: int, prefix: str, *, per_second: int, burst: int) -> tuple[bytes, ...]:
    """Tell the listener of the group of some of the packets, with the first 64 bytes of each."""
    limit = _expression(
        "limit",
        attribute(1, struct.pack("!Q", per_second)),
        attribute(2, struct.pack("!Q", 1)),
        be32(3, burst),
        be32(4, 0),
        be32(5, 0),
    )
    return limit, _expression("log", be16(1, group), text(2, prefix), be32(3, 64), be16(4, 1))


def dnat(name: str, *, with_address: bool) -> bytes:
    """Send it to the address and port that the map has for its (address,) protocol and port, if any."""
    load = _payload(_NETWORK, _DESTINATION, 4) if with_address else b""
    protocol_register, port_register = (9, 10) if with_address else (1, 9)
    load += _meta(16, protocol_register) + _payload(_TRANSPORT, 2, 2, port_register)
    look = _expression("lookup", text(1, name), be32(2, 1), be32(3, 1))
    change = (be32(1, 1), be32(2, socket.AF_INET), be32(3, 1), be32(4, 1), be32(5, 9), be32(6, 9))
    return load + look + _expression("nat", *change)
