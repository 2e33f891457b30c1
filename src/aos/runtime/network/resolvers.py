"""Whom a sandbox asks for names: what the host's resolv.conf(5) says, as far as a sandbox can reach it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

__all__ = ["Resolvers", "host_resolvers", "read_resolvers"]

_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The second holds the true servers where the first names systemd-resolved's stub on the loopback interface."""


@dataclass(frozen=True, slots=True)
class Resolvers:
    addresses: tuple[IPv4Address, ...] = ()
    rest: tuple[str, ...] = ()
    """The lines that name no server (search, options)."""

    def text(self) -> str:
        return "".join(f"{line}\n" for line in (*(f"nameserver {one}" for one in self.addresses), *self.rest))


def host_resolvers() -> Resolvers:
    """Of the first file that names a server which is not on the host's loopback interface."""
    found = Resolvers()
    for file in _FILES:
        try:
            found = read_resolvers(file.read_text(errors="replace"))
        except OSError:
            continue
        if found.addresses:
            break
    return found


def read_resolvers(text: str) -> Resolvers:
    """Servers on the loopback interface, which is another one in a sandbox, and those of IPv6 are left out."""
    addresses: list[IPv4Address] = []
    rest = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] != "nameserver":
            rest.append(line.strip())
            continue
        try:
            address = IPv4Address(words[1])
        except (ValueError, IndexError):
            continue
        if not address.is_loopback and address not in addresses:
            addresses.append(address)
    return Resolvers(tuple(addresses[:3]), tuple(rest))  # resolv.conf(5): MAXNS
