"""The table of one installation: what it holds, as batches. Pure; who commits them is bridge.py.

prerouting, output    published ports lead to their sandbox
postrouting           what leaves the pool gets the host's address
forward, input        what comes from a sandbox goes through the chain of its address, or nowhere; what goes to
                      one must be an answer, or to a published port
egress_A_B_C_D        the policy of the sandbox with that address; what it does not allow goes to
refused_A_B_C_D       which tells the node of it (at most five times a second), and the sender that it is prohibited
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from aos.runtime.network import nftables as nft
from aos.runtime.network.policy import PROTECTED, lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aos.runtime.network.netlink import Message
    from aos.runtime.spec import EgressRule, Port

__all__ = ["Guarded", "Table"]

_LOOPBACK = IPv4Network("127.0.0.0/8")
_BY_SOURCE, _PROTECTED, _PORTS, _PORTS_AT = "by_source", "protected", "ports", "ports_at"
_TOLD_PER_SECOND, _TOLD_AT_ONCE = 5, 20


@dataclass(frozen=True, slots=True)
class Guarded:
    """What the table knows of a sandbox."""

    address: IPv4Address
    label: str
    """What the node is told with a packet of it that was refused."""
    egress: tuple[EgressRule, ...]
    resolvers: tuple[IPv4Address, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    bridge: str
    pool: IPv4Network
    group: int
    """Of nfnetlink_log: where refused packets are told of."""
    own: tuple[IPv4Network, ...] = ()
    """Addresses of the host that the namespace of the table does not know for its own."""

    def rebuild(self, guarded: Iterable[Guarded]) -> list[Message]:
        """The table as it has to be, in place of the one there is: no packet meets anything between."""
        messages = [nft.add_table(self.name), nft.delete_table(self.name), nft.add_table(self.name)]
        messages += self._frame()
        for one in guarded:
            messages += self.add(one)
        return messages

    def remove(self) -> list[Message]:
        return [nft.add_table(self.name), nft.delete_table(self.name)]

    def add(self, one: Guarded) -> list[Message]:
        name, (egress, refused) = self.name, _chains(one.address)
        log = nft.limited_log(self.group, one.label, per_second=_TOLD_PER_SECOND, burst=_TOLD_AT_ONCE)
        messages = [
            nft.add_chain(name, refused),
            nft.add_rule(name, refused, *log),
            nft.add_rule(name, refused, nft.REJECT),
            nft.add_chain(name, egress),
        ]
        for line in lines(one.egress, one.resolvers):
            match = [nft.IPV4, nft.destination(line.to)]
            if line.but_protected:
                match += [nft.but_in(_PROTECTED), nft.destination_local(other=True)]
            if line.protocol:
                match.append(nft.protocol(line.protocol))
            if line.ports:
                match.append(nft.ports(*line.ports))
            messages.append(
                nft.add_rule(name, egress, *match, nft.ACCEPT if line.allow else nft.goto(refused))
            )
        messages.append(nft.add_rule(name, egress, nft.goto(refused)))
        messages.append(nft.add_elements(name, _BY_SOURCE, [nft.verdict_element(one.address.packed, egress)]))
        for port in one.ports:
            target = nft.port_target(one.address.packed, port.inside)
            messages.append(nft.add_elements(name, _map(port), [nft.port_element(_key(port), target)]))
        return messages

    def drop(self, address: IPv4Address, ports: Sequence[Port]) -> list[Message]:
        name, (egress, refused) = self.name, _chains(address)
        return [
            *(nft.delete_elements(name, _map(port), [nft.port_element(_key(port))]) for port in ports),
            nft.delete_elements(name, _BY_SOURCE, [nft.port_element(address.packed)]),
            nft.delete_rules(name, egress),
            nft.delete_chain(name, egress),
            nft.delete_rules(name, refused),
            nft.delete_chain(name, refused),
        ]

    def _frame(self) -> list[Message]:
        name = self.name
        own = [one for one in self.own if not any(map(one.subnet_of, PROTECTED))]
        ours, elsewhere = nft.to_link(self.bridge), nft.to_link(self.bridge, other=True)
        messages = [
            *nft.add_set(name, _PROTECTED, 1, [*PROTECTED, *own]),
            nft.add_map(name, _BY_SOURCE, 2, nft.ADDRESS, 4),
            nft.add_map(name, _PORTS, 3, nft.PORT_KEY, 8, nft.TARGET),
            nft.add_map(name, _PORTS_AT, 4, nft.PORT_AT_KEY, 12, nft.TARGET),
            nft.add_chain(name, "prerouting", "nat", "prerouting", -100),
            nft.add_chain(name, "output", "nat", "output", -100),
            nft.add_chain(name, "postrouting", "nat", "postrouting", 100),
            nft.add_chain(name, "from_sandbox"),
            nft.add_chain(name, "forward", "filter", "forward", 0),
            nft.add_chain(name, "input", "filter", "input", 0),
        ]
        for chain in ("prerouting", "output"):
            at, anywhere = nft.dnat(_PORTS_AT, with_address=True), nft.dnat(_PORTS, with_address=False)
            messages.append(nft.add_rule(name, chain, nft.IPV4, at))
            messages.append(nft.add_rule(name, chain, nft.IPV4, nft.destination_local(), anywhere))
        pool, masquerade = nft.source(self.pool), nft.MASQUERADE
        forward, inside = ("forward", nft.from_link(self.bridge)), nft.jump("from_sandbox")
        return [
            *messages,
            nft.add_rule(name, "postrouting", nft.IPV4, pool, elsewhere, masquerade),
            nft.add_rule(name, "postrouting", nft.IPV4, nft.source(_LOOPBACK), ours, masquerade),
            # A sandbox that comes back to itself, or to another, by way of a port of the host.
            nft.add_rule(name, "postrouting", nft.IPV4, pool, ours, nft.translated(), masquerade),
            nft.add_rule(name, "from_sandbox", nft.connection_state(), nft.ACCEPT),
            nft.add_rule(name, "from_sandbox", nft.IPV4, nft.jump_by_source(_BY_SOURCE)),
            nft.add_rule(name, "from_sandbox", nft.DROP),
            nft.add_rule(name, *forward, inside),
            nft.add_rule(name, "forward", ours, nft.connection_state(), nft.ACCEPT),
            nft.add_rule(name, "forward", ours, nft.translated(), nft.ACCEPT),
            nft.add_rule(name, "forward", ours, nft.DROP),
            nft.add_rule(name, "input", nft.from_link(self.bridge), inside),
        ]


def _chains(address: IPv4Address) -> tuple[str, str]:
    suffix = str(address).replace(".", "_")
    return f"egress_{suffix}", f"refused_{suffix}"


def _map(port: Port) -> str:
    return _PORTS_AT if port.address else _PORTS


def _key(port: Port) -> bytes:
    at = IPv4Address(port.address).packed if port.address else b""
    return at + nft.port_key(port.protocol, port.host)
