"""Network of an ordinary user: the same bridge, leases and table of nftables, in a network namespace of the user's own
that slirp4netns(1) connects to the host's.

    sandbox -- veth -- bridge, table | namespace of the installation | slirp4netns -- the host's network, as the user

Two processes hold it: one that is in the namespace and sleeps, and slirp4netns, which ends when that does. They outlive
the daemon, as the agents do that they serve, and end when the network is settled without an agent. Threads go in there,
and none comes back: the host's network is another user's. Ports of the host are slirp4netns's to open.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aos.errors import AlreadyExists, FailedPrecondition
from aos.runtime.backends.supervised.record import process_start
from aos.runtime.network.bridge import BridgeFacts, BridgeNetwork
from aos.runtime.network.links import addresses, enter_namespace, new_namespace, open_route
from aos.runtime.network.netlink import Netlink
from aos.runtime.network.ports import choose_ports, port_in_use
from aos.runtime.network.resolvers import Resolvers, host_resolvers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aos.runtime.network.bridge import BridgeConfig, _Inside
    from aos.runtime.network.firewall import Table
    from aos.runtime.network.lease import Lease
    from aos.runtime.network.protocol import Connection
    from aos.runtime.spec import NetworkSpec, Port

__all__ = ["UserNetwork"]

_TAP, _NAME_SERVER, _INSIDE = "tap0", IPv4Address("10.0.2.3"), "10.0.2.100"
"""Of slirp4netns's own network, 10.0.2.0/24."""
_ADDRESSES_GROUP = 5  # RTNLGRP_IPV4_IFADDR
_NOTE, _SOCKET = "uplink.json", "uplink.sock"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Uplink:
    holder: int
    holder_start: str
    slirp: int
    slirp_start: str

    @property
    def held(self) -> bool:
        return process_start(self.holder) == self.holder_start

    @property
    def connected(self) -> bool:
        return self.held and process_start(self.slirp) == self.slirp_start


class UserNetwork(BridgeNetwork):
    def __init__(self, config: BridgeConfig, on_use: Callable[[], None] = lambda: None) -> None:
        super().__init__(config, on_use)
        self._directory = config.directory
        self._own: tuple[IPv4Network, ...] = ()
        self._thread: tuple[int, ThreadPoolExecutor] | None = None
        self._used = on_use
        self._changes = threading.RLock()
        """Held by whoever asks for anything: a port is opened by the one who has leased it."""

    # In the namespace, by the one thread that is there.

    def call(self, work: Callable[[], _T]) -> _T:
        with self._changes:
            thread = self._inside()
            self._own = _host_addresses()
            return thread.submit(work).result()

    def reserve(self, directory: Path, spec: NetworkSpec) -> Connection:
        with self._changes:
            taken = [replace(port, address="") for _, lease in self._leases_now() for port in lease.ports]
            chosen = replace(spec, ports=choose_ports(spec.ports, taken))
            promised = self.call(lambda: super(UserNetwork, self).reserve(directory, chosen))
            try:
                for port in chosen.ports:
                    self._publish(port)
            except BaseException:
                self.release(directory)
                raise
            return promised

    def connect(self, inside: _Inside) -> None:
        self.call(lambda: super(UserNetwork, self).connect(inside))

    def release(self, directory: Path) -> None:
        with self._changes:
            self.call(lambda: super(UserNetwork, self).release(directory))
            self._publish_all()

    def settle(self) -> None:
        with self._changes:
            if not any(self._leases_now()):
                return self._end()
            self.call(super().settle)
            self._publish_all()

    def facts(self) -> BridgeFacts:
        return self.call(super().facts)

    # What is another's here than root's.

    def open_addresses(self) -> Netlink:
        return Netlink(socket.NETLINK_ROUTE, groups=[_ADDRESSES_GROUP])

    def _resolvers(self) -> Resolvers:
        """The host's; where it has none that others could ask, slirp4netns asks it."""
        found = host_resolvers()
        return found if found.addresses else replace(found, addresses=(_NAME_SERVER,))

    def _choose_ports(self, asked: Sequence[Port], taken: Sequence[Port]) -> tuple[Port, ...]:
        return tuple(asked)  # `reserve` has done so, outside

    def _ports(self, lease: Lease) -> tuple[Port, ...]:
        """What comes to an address of the host comes to slirp4netns's inside."""
        return tuple(replace(port, address="") for port in lease.ports)

    def _table(self, pool: IPv4Network) -> Table:
        return replace(super()._table(pool), own=self._own)

    # The namespace and the way out of it.

    def _inside(self) -> ThreadPoolExecutor:
        uplink = self._note()
        if uplink is None or not uplink.connected:
            uplink = self._begin(uplink)
            self._publish_all()
        if self._thread is None or self._thread[0] != uplink.holder:
            self.close()  # what it has was of another namespace
            self._pool, self._on_use = None, self._used
            self._thread = uplink.holder, _thread_in(f"/proc/{uplink.holder}/ns/net")
        return self._thread[1]

    def _note(self) -> _Uplink | None:
        try:
            return _Uplink(**json.loads((self._directory / _NOTE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def _begin(self, old: _Uplink | None) -> _Uplink:
        """Another slirp4netns for a namespace that is there; else both. Whoever is killed before the note is written
        leaves nothing: the holder waits for the word to stay, and the other for its end."""
        program = shutil.which("slirp4netns")
        if program is None or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            what = "slirp4netns is not installed" if program is None else "/dev/net/tun cannot be opened"
            raise FailedPrecondition(
                f"agents of this user cannot have a network of their own: {what}",
                code="network-failed",
                hint="`apt-get install slirp4netns`, `modprobe tun`; `aos doctor` checks it. `--network host` needs neither",
            )
        if old is not None:
            _stop_slirp(old.holder)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / _SOCKET).unlink(missing_ok=True)
        stay_read, stay = os.pipe()
        ended, alive = os.pipe()
        ready, ready_write = os.pipe()
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            held = old is not None and old.held
            # One that lives on has no end of this pipe: then `_end` ends slirp4netns.
            holder = old.holder if old is not None and held else _in_thread(lambda: _hold(stay_read, alive))
            argv = [program, "-c", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]
            argv += ["--api-socket", f"/proc/self/fd/5/{_SOCKET}", "--ready-fd", "4"]  # a path of any length
            argv += [*([] if held else ["--exit-fd", "3"]), f"/proc/{holder}/ns/net", _TAP]
            slirp = _spawn(argv, [ended, ready_write, directory])
            os.close(ready_write)
            ready_write = -1
            if os.read(ready, 1) != b"1":
                _kill(slirp)
                raise FailedPrecondition(
                    "slirp4netns does not connect the network of agents",
                    code="network-failed",
                    hint="`slirp4netns --version` must answer; `aos doctor` checks the rest",
                )
            uplink = _Uplink(holder, process_start(holder) or "", slirp, process_start(slirp) or "")
            temporary = self._directory / f"{_NOTE}.new"
            temporary.write_text(json.dumps({name: getattr(uplink, name) for name in _Uplink.__slots__}))
            temporary.replace(self._directory / _NOTE)
            os.write(stay, b"\n")
        finally:
            for descriptor in (stay_read, stay, ended, alive, ready, ready_write, directory):
                if descriptor != -1:
                    os.close(descriptor)
        return uplink

    def _end(self) -> None:
        uplink = self._note()
        if uplink is not None:
            _stop_slirp(uplink.holder)
            if uplink.held:
                _kill(uplink.holder)
        for name in (_NOTE, "pool"):
            (self._directory / name).unlink(missing_ok=True)
        if self._thread is not None:
            self._thread[1].shutdown()
            self._thread = None

    # Ports of the host.

    def _leases_now(self) -> list[tuple[Path, Lease]]:
        with self._leases.held():
            return list(self._live())

    def _publish_all(self) -> None:
        """Open what leases promise and is closed; close what none promises."""
        wanted = {_key(port): port for _, lease in self._leases_now() for port in lease.ports}
        there = {
            (one["proto"], one["host_addr"], one["host_port"]): one["id"]
            for one in self._ask("list_hostfwd").get("entries", [])
        }
        for key in there.keys() - wanted.keys():
            self._ask("remove_hostfwd", id=there[key])
        for key in wanted.keys() - there.keys():
            with suppress(AlreadyExists):  # somebody else has it by now
                self._publish(wanted[key])

    def _publish(self, port: Port) -> None:
        protocol, address, number = _key(port)
        inside: dict[str, Any] = {"guest_addr": _INSIDE, "guest_port": number}
        try:
            self._ask("add_hostfwd", proto=protocol, host_addr=address, host_port=number, **inside)
        except OSError as error:
            why = "a program of this host listens there, or this user may not"
            raise port_in_use(port, f"{why} ({error})") from error

    def _ask(self, what: str, **arguments: object) -> dict[str, Any]:
        """One question to slirp4netns; OSError for what it refuses."""
        with socket.socket(socket.AF_UNIX) as asking:
            directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                asking.connect(f"/proc/self/fd/{directory}/{_SOCKET}")
            finally:
                os.close(directory)
            asking.sendall(json.dumps({"execute": what, "arguments": arguments}).encode())
            asking.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := asking.recv(1 << 16):
                answer += piece
        found = json.loads(answer)
        if "error" in found:
            raise OSError(str(found["error"].get("desc", found["error"])))
        returned: dict[str, Any] = found.get("return", {})
        return returned


def _key(port: Port) -> tuple[str, str, int]:
    return port.protocol, port.address or "0.0.0.0", port.host


def _host_addresses() -> tuple[IPv4Network, ...]:
    """Of the host itself: this thread is there."""
    route = open_route()
    try:
        return tuple(IPv4Network((address, 32)) for address in sorted(addresses(route)))
    finally:
        route.close()


def _thread_in(namespace: str) -> ThreadPoolExecutor:
    """One thread that is in a network namespace for good."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="network")
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        executor.submit(enter_namespace, descriptor).result()
    finally:
        os.close(descriptor)
    return executor


def _in_thread(work: Callable[[], _T]) -> _T:
    """In a thread that is never used again."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def _stop_slirp(holder: int) -> None:
    """Whichever serves the namespace of that process, also one that nobody has noted."""
    words = os.fsencode(f"/proc/{holder}/ns/net\0{_TAP}\0")
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes().endswith(words):
                _kill(int(entry.name))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _hold(stay: int, alive: int) -> int:
    """Make a network namespace, and a process that sleeps in it once it is told to stay."""
    new_namespace()
    return _spawn(["/bin/sh", "-c", "read _ <&3 && exec sleep infinity 3<&-"], [stay, alive])


def _spawn(argv: list[str], descriptors: list[int]) -> int:
    """`descriptors` are its 3, 4, …; it is in nobody's session."""
    safe = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 3 + len(descriptors)) for one in descriptors]
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    actions += [(os.POSIX_SPAWN_DUP2, one, 3 + number) for number, one in enumerate(safe)]
    try:
        return os.posix_spawn(
            argv[0], argv, dict(os.environ), file_actions=actions, setsid=True, setsigmask=()
        )
    finally:
        for one in safe:
            os.close(one)
