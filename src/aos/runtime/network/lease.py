"""What is on disk of a sandbox's connection, so that whoever comes next knows it.

<sandbox>/network.json                      Lease; written before anything is made
AOS_STATE/network/addresses/10.99.0.7       a link to the sandbox's directory: it has this address
AOS_STATE/network/lock                      who changes any of it; holds the address that was given out last
AOS_STATE/network/pool                      the pool

A lease ends with its sandbox: when that has a status.json, or is gone. So nothing needs to be cleaned after a
crash before it can be used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from aos.runtime.network.rules import parse_egress, parse_port, port_text, rule_text
from aos.runtime.spec import Bandwidth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aos.runtime.spec import EgressRule, Port

__all__ = ["LEASE", "Lease", "Leases"]

LEASE = "network.json"
_ENDED = "status.json"


@dataclass(frozen=True, slots=True)
class Lease:
    address: IPv4Address
    link: str
    """What the host calls its end of the link."""
    egress: tuple[EgressRule, ...]
    resolvers: tuple[IPv4Address, ...]
    ports: tuple[Port, ...]
    """With the ports of the host that were chosen."""
    bandwidth: Bandwidth

    def write(self, directory: Path) -> None:
        raw = {
            "address": str(self.address),
            "link": self.link,
            "egress": list(map(rule_text, self.egress)),
            "resolvers": list(map(str, self.resolvers)),
            "ports": list(map(port_text, self.ports)),
            "up": self.bandwidth.up,
            "down": self.bandwidth.down,
        }
        # Nobody reads it before there is a link to the directory.
        (directory / LEASE).write_text(json.dumps(raw))

    @classmethod
    def read(cls, directory: Path) -> Lease | None:
        try:
            raw = json.loads((directory / LEASE).read_bytes())
            return cls(
                IPv4Address(raw["address"]),
                raw["link"],
                parse_egress(raw["egress"]),
                tuple(map(IPv4Address, raw["resolvers"])),
                tuple(map(parse_port, raw["ports"])),
                Bandwidth(raw["up"], raw["down"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


class Leases:
    """The addresses that are in use. All but `held` is for whoever holds the lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._addresses = directory / "addresses"
        self._lock = -1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """One at a time, of all threads and processes."""
        self._addresses.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._lock = descriptor
            yield
        finally:
            os.close(descriptor)

    def pool(self) -> IPv4Network | None:
        try:
            return IPv4Network((self._directory / "pool").read_text())
        except (OSError, ValueError):
            return None

    def set_pool(self, pool: IPv4Network) -> None:
        path = self._directory / "pool"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(str(pool))
        temporary.replace(path)

    def last(self) -> IPv4Address | None:
        """The address that was given out last."""
        try:
            return IPv4Address(os.pread(self._lock, 4, 0))
        except ValueError:
            return None

    def addresses(self) -> set[IPv4Address]:
        return {IPv4Address(name) for name in os.listdir(self._addresses)}  # noqa: PTH208 - on the start path

    def take(self, lease: Lease, directory: Path) -> None:
        lease.write(directory)
        (self._addresses / str(lease.address)).symlink_to(directory)
        os.pwrite(self._lock, lease.address.packed, 0)

    def give_back(self, address: IPv4Address, directory: Path | None = None) -> bool:
        """False when it was not this directory's."""
        link = self._addresses / str(address)
        try:
            if directory is not None and os.readlink(link) != str(directory):  # noqa: PTH115 - as it was written
                return False
            link.unlink()
        except FileNotFoundError:
            return False
        return True

    def all(self) -> Iterator[tuple[IPv4Address, Path, Lease | None]]:
        """Address, sandbox and lease of each; no lease: it has ended."""
        for address in sorted(self.addresses()):
            directory = (self._addresses / str(address)).readlink()
            ended = (directory / _ENDED).exists()
            lease = None if ended else Lease.read(directory)
            yield address, directory, lease if lease is not None and lease.address == address else None
