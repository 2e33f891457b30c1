"""The words in which people say what a sandbox may reach, which ports it shows and how fast it may be. Pure.

egress    `internet`, `none`, or rules, the first that matches decides:
          `allow 203.0.113.0/24`, `allow 10.1.2.3 tcp 443,8000-8100`, `deny any udp 53`
ports     `8080`, `8080:80`, `127.0.0.1:8080:80`, `53:53/udp`, `127.0.0.1::80`
rates     bits per second: `500k`, `10M`, `1Gbit`
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Literal, cast

from aos import errors
from aos.errors import InvalidArgument
from aos.runtime.spec import INTERNET, EgressRule, Port

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["parse_egress", "parse_port", "parse_rate", "port_text", "rule_text"]

_PROTOCOLS = ("tcp", "udp", "icmp")
_ANY = "0.0.0.0/0"
_MOST_RULES = 256
_LONGEST_TEXT = 500
_RATE = re.compile(r"([0-9]{1,9})([kKMG]?)(?:bit|bps)?")
_PORT = re.compile(r"(?:(?:([0-9.]*):)?([0-9]*):)?([0-9]+)(?:/(tcp|udp))?")
_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.?[A-Za-z]+\.?")


def parse_egress(words: str | Iterable[str]) -> tuple[EgressRule, ...]:
    """InvalidArgument `egress-invalid` says which rule is wrong, and why."""
    words = [words] if isinstance(words, str) else list(words)
    if words == ["internet"]:
        return INTERNET
    if words == ["none"]:
        return ()
    if len(words) > _MOST_RULES:
        raise _invalid(f"{len(words)} rules", f"are more than {_MOST_RULES}")
    return tuple(map(_rule, words))


def _rule(text: str) -> EgressRule:
    parts = text.split() if len(text) <= _LONGEST_TEXT else []
    if not 2 <= len(parts) <= 4 or parts[0] not in ("allow", "deny"):
        raise _invalid(repr(text[:60]), "is no rule")
    protocol = parts[2] if len(parts) > 2 else ""
    if protocol and protocol not in _PROTOCOLS:
        raise _invalid(repr(text), f"has no protocol {protocol!r}: {', '.join(_PROTOCOLS)}")
    if len(parts) == 4 and protocol == "icmp":
        raise _invalid(repr(text), "has ports, and icmp has none")
    return EgressRule(
        parts[0] == "allow",
        _ANY if parts[1] in ("any", "internet") else _network(parts[1], text),
        cast("Literal['', 'tcp', 'udp', 'icmp']", protocol),
        tuple(_ports(piece, text) for piece in parts[3].split(",")) if len(parts) == 4 else (),
    )


def _network(word: str, rule: str) -> str:
    try:
        network: IPv4Network | IPv6Network = ip_network(word)
    except ValueError as error:
        if _NAME.fullmatch(word):
            raise errors.NotImplemented(
                f"egress rule {rule!r} names a host: policies speak of addresses so far",
                code="capability-missing",
                hint="give its addresses, such as 203.0.113.7 or 203.0.113.0/24",
            ) from error
        raise _invalid(repr(rule), f"has no IPv4 network: {error}") from error
    if isinstance(network, IPv6Network):
        raise errors.NotImplemented(
            f"egress rule {rule!r} speaks of IPv6, which sandboxes do not have so far",
            code="capability-missing",
            hint="give IPv4 networks; everything of IPv6 is refused",
        )
    return str(network)


def _ports(piece: str, rule: str) -> tuple[int, int]:
    first, dash, last = piece.partition("-")
    if first.isdecimal() and (last.isdecimal() if dash else not last):
        low, high = int(first), int(last or first)
        if 1 <= low <= high <= 65535:
            return low, high
    raise _invalid(repr(rule), f"has no ports {piece!r}: such as 443 or 8000-8100")


def _invalid(what: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"egress: {what} {why}",
        code="egress-invalid",
        hint="internet, none, or rules such as `allow 203.0.113.0/24 tcp 443` and `deny any udp`",
    )


def parse_port(text: str) -> Port:
    """`[[ADDRESS:]HOST:]INSIDE[/PROTOCOL]`; InvalidArgument `port-invalid`."""
    match = _PORT.fullmatch(text) if len(text) < 64 else None
    if match is not None:
        address, host, inside, protocol = match.groups()
        port = Port(
            int(inside),
            cast("Literal['tcp', 'udp']", protocol or "tcp"),
            int(host or 0),
            _address(address or ""),
        )
        if 1 <= port.inside <= 65535 and port.host <= 65535 and port.address != "-":
            return port
    raise InvalidArgument(
        f"{text[:60]!r} is no port to publish",
        code="port-invalid",
        hint="such as 8080:80, 127.0.0.1:8080:80, 53:53/udp, or 80 for a free port of the host",
    )


def _address(text: str) -> str:
    """Empty for all addresses, `-` for what is none."""
    if text in ("", "0.0.0.0"):
        return ""
    try:
        return str(IPv4Network(text).network_address)
    except ValueError:
        return "-"


def parse_rate(text: str) -> int:
    """Bits per second; InvalidArgument `rate-invalid`."""
    match = _RATE.fullmatch(text)
    rate = int(match[1]) * {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]] if match else 0
    if not 8_000 <= rate <= 10**12:
        raise InvalidArgument(
            f"{text[:60]!r} is no rate",
            code="rate-invalid",
            hint="bits per second, from 8k on: such as 500k, 10M, 1G",
        )
    return rate


def rule_text(rule: EgressRule) -> str:
    """The words that parse to it."""
    ports = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in rule.ports)
    words = ("allow" if rule.allow else "deny", "any" if rule.to == _ANY else rule.to, rule.protocol, ports)
    return " ".join(filter(None, words))


def port_text(port: Port) -> str:
    """The words that parse to it."""
    return f"{port.address or '0.0.0.0'}:{port.host or ''}:{port.inside}/{port.protocol}"
