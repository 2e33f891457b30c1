"""What on this host would keep agents from networks of their own: for `aos doctor`, which changes nothing."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from aos.errors import AosError
from aos.runtime.network import links, nftables
from aos.runtime.network.addresses import gateway_of
from aos.runtime.network.firewall import Guarded, Table
from aos.runtime.spec import INTERNET, Port

if TYPE_CHECKING:
    from aos.runtime.network.bridge import BridgeNetwork

__all__ = ["Findings", "examine_network"]

_NAME, _GROUP = "aos-doctor", 0x4000
_POOL, _ADDRESS, _RESOLVER = IPv4Network("10.96.0.0/16"), IPv4Address("10.96.0.2"), IPv4Address("192.0.2.53")


@dataclass(frozen=True, slots=True)
class Findings:
    kernel: str
    """What it cannot make; empty when all that a network is made of was made."""
    pool: str
    """The addresses that agents have, or would get; empty: none."""
    taken: AosError | None
    """Why none."""
    drops: tuple[str, ...]
    """Chains of others (`TABLE CHAIN`) that drop what is forwarded."""


def examine_network(network: BridgeNetwork) -> Findings:
    """Blocking."""
    kernel: list[str] = []
    thread = threading.Thread(target=lambda: kernel.append(_try_kernel()))
    thread.start()
    thread.join()
    pool, taken = "", None
    try:
        pool = str(network.pool())
    except AosError as error:
        taken = error
    try:
        with nftables.open_netfilter() as netfilter:
            drops = nftables.foreign_drops(netfilter, "aos_")
    except OSError:
        drops = []  # without nftables; `kernel` says so
    return Findings(kernel[0], pool, taken, tuple(drops))


def _try_kernel() -> str:
    """Make all of it in a network namespace that ends with this thread, where nobody else is."""
    doing = "network namespace"
    try:
        links.new_namespace()
        with links.open_route() as route, nftables.open_netfilter() as netfilter:
            doing = "bridge"
            bridge, _ = links.make_bridge(route, _NAME, gateway_of(_POOL), _POOL)
            doing = "veth link"
            here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                links.make_veth(route, bridge, f"{_NAME}-v", _ADDRESS, here)
            finally:
                os.close(here)
            doing = "table of nftables (nat, fib, log and reject)"
            one = Guarded(_ADDRESS, _NAME, INTERNET, (_RESOLVER,), (Port(80, host=8080),))
            nftables.commit(netfilter, Table("aos_doctor", _NAME, _POOL, _GROUP).rebuild([one]))
    except OSError as error:
        return f"{doing}: {error.strerror}"
    return ""
