"""Pools of addresses: which one an installation takes, and which address comes next. Pure."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

__all__ = ["choose_pool", "gateway_of", "next_address", "parse_pool"]

_CANDIDATES = [
    *(f"10.{number}.0.0/16" for number in range(96, 224)),
    *(f"172.{n}.0.0/16" for n in range(20, 32)),
]
"""Away from the first of 10/8, which people, clouds and Kubernetes like, and from Docker's 172.17."""


def parse_pool(text: str) -> IPv4Network:
    """InvalidArgument `config-invalid` for what is no IPv4 network with room for sandboxes."""
    try:
        pool = IPv4Network(text)
    except ValueError as error:
        raise InvalidArgument(
            f"network.pool: {text[:60]!r} is no IPv4 network: {error}",
            code="config-invalid",
            hint="such as 10.99.0.0/16",
        ) from error
    if not 8 <= pool.prefixlen <= 29:
        raise InvalidArgument(
            f"network.pool: {pool} has a prefix that is not from 8 to 29",
            code="config-invalid",
            hint="such as 10.99.0.0/16, which has 65,533 addresses for sandboxes",
        )
    return pool


def choose_pool(installation: str, asked: IPv4Network | None, taken: Iterable[IPv4Network]) -> IPv4Network:
    """A network that none of `taken` (the host's routes) overlaps: the one that is asked for, else the first of the
    candidates that comes after the installation's own place among them.

    FailedPrecondition `network-pool-taken` when there is none."""
    routed = [network for network in taken if network.prefixlen]
    if asked is not None:
        overlap = next(filter(asked.overlaps, routed), None)
        if overlap is not None:
            raise FailedPrecondition(
                f"the pool of addresses {asked} overlaps {overlap}, which this host has a route to",
                code="network-pool-taken",
                hint="set [network] pool in the configuration to a network that nothing uses",
                pool=str(asked),
            )
        return asked
    start = int(hashlib.sha256(installation.encode()).hexdigest()[:8], 16) % len(_CANDIDATES)
    for number in range(len(_CANDIDATES)):
        pool = IPv4Network(_CANDIDATES[(start + number) % len(_CANDIDATES)])
        if not any(map(pool.overlaps, routed)):
            return pool
    raise FailedPrecondition(
        "no private /16 is left on this host for sandboxes: it has routes to all of them",
        code="network-pool-taken",
        hint="set [network] pool in the configuration to a network that nothing uses, such as 10.99.8.0/22",
    )


def gateway_of(pool: IPv4Network) -> IPv4Address:
    """The host's own address in the pool: the first."""
    return pool[1]


def next_address(pool: IPv4Network, last: IPv4Address | None, leased: Container[IPv4Address]) -> IPv4Address:
    """The first free one after `last`, and round: one that was given back is given out as late as can be, for what
    the kernel remembers of its connections. ResourceExhausted `network-pool-exhausted`."""
    for address in _round(pool, last):
        if address not in leased:
            return address
    raise ResourceExhausted(
        f"all {pool.num_addresses - 3} addresses of the pool {pool} are in use",
        code="network-pool-exhausted",
        hint="stop or remove agents, or set [network] pool in the configuration to a larger network",
        pool=str(pool),
    )


def _round(pool: IPv4Network, last: IPv4Address | None) -> Iterator[IPv4Address]:
    first, end = int(pool[2]), int(pool[-1])
    start = int(last) + 1 if last is not None and last in pool else first
    start = start if first <= start < end else first
    yield from (IPv4Address(number) for number in range(start, end))
    yield from (IPv4Address(number) for number in range(first, start))
