"""What a list of egress rules means: pure, from rules to the lines that a firewall goes through.

The first rule that matches decides; what no rule matches is refused. A rule for a wide network (`any`,
`0.0.0.0/0`, `8.0.0.0/5`) does not open what is protected inside of it: the metadata services of clouds, private
ranges, the host's own addresses, other sandboxes. Those are opened by a rule that names them, or a part of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.runtime.spec import EgressRule

__all__ = ["PROTECTED", "Line", "decide", "line_text", "lines"]

PROTECTED = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network (RFC 1122)
            "10.0.0.0/8",  # private (RFC 1918)
            "100.64.0.0/10",  # of carriers (RFC 6598); Alibaba's metadata service is 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's metadata service
            "169.254.0.0/16",  # link-local (RFC 3927); metadata services at 169.254.169.254 and 169.254.170.2
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments (RFC 6890); Oracle's metadata service is 192.0.0.192
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # of benchmarks (RFC 2544)
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
"""In their order, none inside of another. Of IPv6 nothing is let through, so neither AWS's fd00:ec2::254."""


@dataclass(frozen=True, slots=True)
class Line:
    allow: bool
    to: IPv4Network
    but_protected: bool
    """What is protected, and the host's own addresses, do not match."""
    protocol: Literal["", "tcp", "udp", "icmp"]
    ports: tuple[int, int] | None
    """First and last."""

    def matches(self, address: IPv4Address, protocol: str, port: int, *, own: bool) -> bool:
        """As the firewall does; `own`: it is an address of the host."""
        if address not in self.to or self.protocol not in ("", protocol):
            return False
        if self.but_protected and (own or is_protected(address)):
            return False
        return self.ports is None or self.ports[0] <= port <= self.ports[1]


def lines(rules: Iterable[EgressRule], resolvers: Iterable[IPv4Address] = ()) -> list[Line]:
    """In their order. The host's resolvers can be asked, after all rules, when anything is allowed at all."""
    found, allows = [], False
    for rule in rules:
        network = IPv4Network(rule.to)
        allows = allows or rule.allow
        but_protected = rule.allow and not any(network.subnet_of(one) for one in PROTECTED)
        found += [
            Line(rule.allow, network, but_protected, rule.protocol, ports) for ports in rule.ports or (None,)
        ]
    for resolver in resolvers if allows else ():
        host = IPv4Network((resolver, 32))
        found += [Line(True, host, False, "udp", (53, 53)), Line(True, host, False, "tcp", (53, 53))]
    return found


def decide(
    lines: Iterable[Line], address: IPv4Address, protocol: str, port: int, *, own: bool = False
) -> bool:
    """Whether it may leave."""
    for line in lines:
        if line.matches(address, protocol, port, own=own):
            return line.allow
    return False


def line_text(line: Line) -> str:
    """For people."""
    ports = (
        ""
        if line.ports is None
        else f"{line.ports[0]}"
        if line.ports[0] == line.ports[1]
        else "{}-{}".format(*line.ports)
    )
    to = "any" if line.to.prefixlen == 0 else str(line.to)
    words = ("allow" if line.allow else "deny", to, line.protocol, ports)
    return " ".join(filter(None, words)) + (" (but nothing protected)" if line.but_protected else "")


def is_protected(address: IPv4Address) -> bool:
    return any(address in network for network in PROTECTED)
