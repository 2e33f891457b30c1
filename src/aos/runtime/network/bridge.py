"""Network with a bridge of the kernel: one for each installation, a link from it into each sandbox's namespace, one
table of nftables. docs/network.md says what that changes on a host.

All of it follows from the leases on disk (lease.py), under one lock: so bridge and table can be made anew at any
time, and whoever was killed between any two lines has left nothing that matters.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aos.errors import AosError, FailedPrecondition, ResourceExhausted
from aos.runtime.network import links, nftables
from aos.runtime.network.addresses import choose_pool, gateway_of, next_address, parse_pool
from aos.runtime.network.firewall import Guarded, Table
from aos.runtime.network.lease import LEASE, Lease, Leases
from aos.runtime.network.netlink import Netlink, NetlinkError
from aos.runtime.network.ports import choose_ports
from aos.runtime.network.protocol import Connection
from aos.runtime.network.resolvers import host_resolvers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from ipaddress import IPv4Address

    from aos.runtime.network.netlink import Message
    from aos.runtime.network.resolvers import Resolvers
    from aos.runtime.spec import NetworkSpec, Port

__all__ = ["BridgeConfig", "BridgeFacts", "BridgeNetwork"]

_STALE = frozenset((errno.ENOENT, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EEXIST, errno.EBUSY))
"""What the kernel says when the table is gone, or the bridge, or its index is another link's now; and when the table still
has a port of a sandbox that has ended."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    installation: str
    """Name of the bridge: at most 15 bytes."""
    directory: Path
    """AOS_STATE/network."""
    pool: str = ""
    """Empty: a /16 that the host has no route to."""


@dataclass(frozen=True, slots=True)
class BridgeFacts:
    bridge: str
    table: str
    pool: str
    gateway: str
    capacity: int
    leases: tuple[tuple[str, Lease], ...]
    """Sandbox and lease, of those that live."""


@dataclass(frozen=True, slots=True)
class _Inside:
    network: BridgeNetwork
    directory: Path
    route: Netlink
    """Made in the namespace, so it speaks of the namespace."""
    namespace: int

    def connect(self) -> None:
        self.network.connect(self)

    def close(self) -> None:
        self.route.close()
        os.close(self.namespace)


class BridgeNetwork:
    def __init__(self, config: BridgeConfig, on_use: Callable[[], None] = lambda: None) -> None:
        """`on_use`: called, in some thread, when it is about to be used for the first time."""
        self._config = config
        self._leases = Leases(config.directory)
        self._asked = parse_pool(config.pool) if config.pool else None
        self._pool: IPv4Network | None = None
        self._bridge = 0
        """Its index."""
        self._sockets: tuple[Netlink, Netlink] | None = None
        self._on_use: Callable[[], None] | None = on_use

    @property
    def group(self) -> int:
        """Of nfnetlink_log, where refused packets are told of: from 0x4000, where others of the host are not."""
        return 0x4000 | int(hashlib.sha256(self._config.installation.encode()).hexdigest()[:4], 16) & 0x3FFF

    @property
    def table_name(self) -> str:
        return self._config.installation.replace("-", "_")

    def own_port(self) -> int:
        """Of the socket by which this object changes the table; see netlink.Netlink."""
        return self._sockets[1].port if self._sockets is not None else 0

    # What a backend asks for (protocol.py).

    def reserve(self, directory: Path, spec: NetworkSpec) -> Connection:
        resolvers = self._resolvers()
        with self._changing("prepare the network of sandboxes"):
            pool = self._ready()
            taken = [port for _, lease in self._live() for port in lease.ports] if spec.ports else []
            ports = self._choose_ports(spec.ports, taken)
            address = self._choose_address(pool)
            name = hashlib.sha256(f"{self._config.installation} {directory} {address}".encode()).hexdigest()
            lease = Lease(
                address, f"aosv{name[:10]}", spec.egress, resolvers.addresses, ports, spec.bandwidth
            )
            self._leases.take(lease, directory)
        return Connection(f"{address}\t{{name}}\n", resolvers.text())

    def enter(self, directory: Path, namespace: int | None = None) -> _Inside:
        with _working("make a network namespace"):
            if namespace is None:
                links.new_namespace()
            else:
                links.enter_namespace(namespace)
        # Links to come have no addresses of IPv6; the loopback interface keeps ::1.
        _set("ipv6/conf/default/disable_ipv6", "1")
        entered = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        return _Inside(self, directory, links.open_route(), entered)

    def connect(self, inside: _Inside) -> None:
        directory = inside.directory
        lease = Lease.read(directory)
        if lease is None:
            raise FailedPrecondition(f"{directory} holds no lease of an address", code="network-failed")
        with self._changing(f"connect {directory.name} to the network"):
            pool = self._ready()

            def link() -> None:
                links.make_veth(self._route, self._bridge, lease.link, lease.address, inside.namespace)

            self._or_settled(link)
            self._or_settled(lambda: self._commit(self._table(pool).add(self._guarded(directory, lease))))
            if lease.bandwidth.down is not None:
                links.shape(self._route, lease.link, lease.bandwidth.down)
        with _working(f"connect {directory.name} to the network"):
            links.configure_inside(inside.route, lease.address, gateway_of(pool))
            if lease.bandwidth.up is not None:
                links.shape(inside.route, links.INSIDE, lease.bandwidth.up)

    def release(self, directory: Path) -> None:
        lease = Lease.read(directory) if (directory / LEASE).exists() else None
        if lease is None:
            return
        with self._changing("take back an address"):
            pool = self._leases.pool()
            if not self._leases.give_back(lease.address, directory) or pool is None:
                return
            try:
                self._commit(self._table(pool).drop(lease.address, self._ports(lease)))
            except NetlinkError as error:
                if error.errno not in _STALE:
                    raise
                self._settle()

    # What the node asks for.

    def settle(self) -> None:
        """Make the host what the leases say: a bridge and a table, or, when there are none, neither."""
        if self._leases.pool() is None:
            return
        with self._changing("restore the network of sandboxes"):
            self._settle()

    def pool(self) -> IPv4Network:
        """The addresses of a bridge that may not be there yet. FailedPrecondition `network-pool-taken`."""
        return self._leases.pool() or self._choose_pool()

    def facts(self) -> BridgeFacts:
        """Of a bridge that may not be there yet."""
        with self._changing("look at the network of sandboxes"):
            pool = self.pool()
            leases = tuple((directory.name, lease) for directory, lease in self._live())
        gateway = str(gateway_of(pool))
        capacity = pool.num_addresses - 3
        return BridgeFacts(self._config.installation, self.table_name, str(pool), gateway, capacity, leases)

    def close(self) -> None:
        """Its sockets; the next call opens them again."""
        for one in self._sockets or ():
            one.close()
        self._sockets = None

    def call(self, work: Callable[[], _T]) -> _T:
        """Where links and table are."""
        return work()

    # What an ordinary user's network does otherwise (user.py).

    def open_addresses(self) -> Netlink | None:
        """What hears of other addresses of the host, where the table has to be told of them."""
        return None

    def _resolvers(self) -> Resolvers:
        return host_resolvers()

    def _choose_ports(self, asked: Sequence[Port], taken: Sequence[Port]) -> tuple[Port, ...]:
        return choose_ports(asked, taken)

    def _ports(self, lease: Lease) -> tuple[Port, ...]:
        """As they come to the table."""
        return lease.ports

    # Under the lock.

    def _guarded(self, directory: Path, lease: Lease) -> Guarded:
        return Guarded(lease.address, directory.name, lease.egress, lease.resolvers, self._ports(lease))

    @property
    def _route(self) -> Netlink:
        return self._open()[0]

    def _open(self) -> tuple[Netlink, Netlink]:
        if self._sockets is None:
            self._sockets = links.open_route(), nftables.open_netfilter()
        return self._sockets

    def _commit(self, messages: Iterable[Message]) -> None:
        nftables.commit(self._open()[1], messages)

    def _table(self, pool: IPv4Network) -> Table:
        return Table(self.table_name, self._config.installation, pool, self.group)

    def _ready(self) -> IPv4Network:
        """The pool of the bridge, which is made sure of when this object first needs it."""
        _forward()
        if self._pool is None:
            pool = self._leases.pool()
            if pool is None or (self._asked not in (None, pool) and not any(self._live())):
                pool = self._choose_pool()
                self._leases.set_pool(pool)
            self._settle(keep=True)
            self._pool = pool
            if self._on_use is not None:
                self._on_use()
                self._on_use = None
        return self._pool

    def _choose_pool(self) -> IPv4Network:
        ours = links.index_of(self._route, self._config.installation)
        taken = [route.to for route in links.routes(self._route) if ours is None or route.index != ours]
        taken += [IPv4Network((address, 32)) for address in host_resolvers().addresses]
        return choose_pool(self._config.installation, self._asked, taken)

    def _choose_address(self, pool: IPv4Network) -> IPv4Address:
        try:
            return next_address(pool, self._leases.last(), self._leases.addresses())
        except ResourceExhausted:
            self._settle(keep=True)  # forgets those that have ended
        return next_address(pool, self._leases.last(), self._leases.addresses())

    def _live(self) -> Iterator[tuple[Path, Lease]]:
        for _, directory, lease in self._leases.all():
            if lease is not None:
                yield directory, lease

    def _settle(self, *, keep: bool = False) -> None:
        """`keep`: bridge and table stay, or come, without a lease."""
        pool, bridge = self._leases.pool(), self._config.installation
        live: list[tuple[Path, Lease]] = []
        for address, directory, lease in list(self._leases.all()):
            if lease is None:  # it has ended, and whoever should have given it back was killed
                self._leases.give_back(address)
            else:
                live.append((directory, lease))
        if pool is None or not (live or keep):
            self._commit([nftables.add_table(self.table_name), nftables.delete_table(self.table_name)])
            links.delete_link(self._route, bridge)
            self._pool = None
            return
        _forward()
        self._bridge, made = links.make_bridge(self._route, bridge, gateway_of(pool), pool)
        if made:
            _set(f"ipv6/conf/{bridge}/disable_ipv6", "1")
            _set(f"ipv4/conf/{bridge}/route_localnet", "1")  # from the host's loopback to published ports
            for _, lease in live:
                with contextlib.suppress(NetlinkError):  # it ends just now
                    links.join_bridge(self._route, bridge, lease.link)
        self._commit(self._table(pool).rebuild(self._guarded(*one) for one in live))

    def _or_settled(self, work: Callable[[], _T]) -> _T:
        """Do it; when what it needs is not as it should be, once more after that is made anew."""
        try:
            return work()
        except NetlinkError as error:
            if error.errno not in _STALE:
                raise
            self._settle(keep=True)
            return work()

    @contextlib.contextmanager
    def _changing(self, what: str) -> Iterator[None]:
        with _working(what), self._leases.held():
            yield


@contextlib.contextmanager
def _working(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(what, error) from error


def _failed(what: str, error: OSError) -> AosError:
    where = f"{error.filename}: " if error.filename else ""
    return FailedPrecondition(
        f"cannot {what}: {where}{error.strerror}",
        code="network-failed",
        hint="bridge, veth and nftables (nat, fib, log, reject) of the kernel are needed; `aos doctor` checks them",
        errno=error.errno,
    )


def _forward() -> None:
    """Between the links of the host; whoever switched it off meanwhile has cut the sandboxes off."""
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0":
        _set("ipv4/ip_forward", "1")


def _set(name: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        Path("/proc/sys/net", name).write_text(value)
