"""A sandbox's way into its network while it is made: promised, entered by its parent, connected meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aos.errors import FailedPrecondition, NotFound
from aos.ids import SandboxId
from aos.runtime.backends.supervised.native import libc

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.runtime.backends.supervised.user_ids import UserIds
    from aos.runtime.network.protocol import Inside, Network
    from aos.runtime.spec import AgentSpec

__all__ = ["Connecting", "NetworkHost", "connecting", "release"]

_OWN = "/proc/self/ns/net"
"""Of the OCI runtime, whose parent has entered the sandbox's namespace."""
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
"""netdevice(7)."""
_HOSTS, _RESOLV_CONF = "hosts", "resolv.conf"


class NetworkHost(Protocol):
    """What a backend knows of its sandboxes and their network."""

    @property
    def backend(self) -> str: ...

    @property
    def sandboxes(self) -> Path: ...

    @property
    def network(self) -> Callable[[], Network]: ...

    async def running(self, id: SandboxId) -> int | None:
        """The pid of a sandbox's first process; None where it does not run."""
        ...


class Connecting:
    """Nothing of the host's network, unless a subclass gives some."""

    namespace: str | None = ""
    """For the configuration (aos.runtime.bundle.runtime_config)."""

    def __init__(self, directory: Path, spec: AgentSpec) -> None:
        self._directory = directory
        self._loopback = f"127.0.0.1\tlocalhost {spec.hostname}\n::1\tlocalhost\n"

    def files(self) -> dict[str, Path]:
        """The /etc files of the sandbox, written, and where they are on the host."""
        return self._write(self._loopback, None)

    def enter(self) -> None:
        """In the thread that starts conmon, before anything else."""

    def entering(self, then: Callable[[], None]) -> Callable[[], None]:
        def enter() -> None:
            self.enter()
            then()

        return enter

    def begin(self) -> None:
        """Connect, while the OCI runtime is at work; `enter` was called."""

    async def finish(self) -> None:
        """It is connected on return."""

    async def give_up(self) -> None:
        """Nothing goes on in the background on return."""

    def _write(self, hosts: str, resolv_conf: str | None) -> dict[str, Path]:
        files = {_HOSTS: hosts} if resolv_conf is None else {_HOSTS: hosts, _RESOLV_CONF: resolv_conf}
        for name, text in files.items():
            (self._directory / name).write_text(text)
        return {f"/etc/{name}": self._directory / name for name in files}


class _Loopback(Connecting):
    """Nothing of the host's network, and the loopback is up before the runtime comes."""

    namespace = _OWN

    def enter(self) -> None:
        if libc().unshare(_CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


class _HostNetwork(Connecting):
    namespace = None

    def files(self) -> dict[str, Path]:
        return {f"/etc/{name}": Path("/etc", name) for name in (_HOSTS, _RESOLV_CONF)}


class _Shared(Connecting):
    """The namespace, names and resolvers of another sandbox."""

    namespace = _OWN

    def __init__(self, directory: Path, spec: AgentSpec, other: Path, pid: int) -> None:
        super().__init__(directory, spec)
        self._other = other
        self._pid = pid

    def files(self) -> dict[str, Path]:
        hosts, resolv_conf = self._loopback, None
        with contextlib.suppress(FileNotFoundError):
            hosts += (self._other / _HOSTS).read_text()
            resolv_conf = (self._other / _RESOLV_CONF).read_text()
        return self._write(hosts, resolv_conf)

    def enter(self) -> None:
        descriptor = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc().setns(descriptor, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(descriptor)


class _Bridged(Connecting):
    namespace = _OWN

    def __init__(
        self,
        directory: Path,
        spec: AgentSpec,
        network: Network,
        hosts: str,
        resolv_conf: str,
        users: UserIds | None,
    ) -> None:
        super().__init__(directory, spec)
        self._network = network
        self._users = users
        self._hosts, self._resolv_conf = hosts, resolv_conf
        self._inside: Inside | None = None
        self._work: asyncio.Task[None] | None = None

    def files(self) -> dict[str, Path]:
        return self._write(self._hosts, self._resolv_conf)

    def enter(self) -> None:
        self._inside = self._network.enter(
            self._directory, self._users.network if self._users is not None else None
        )

    def begin(self) -> None:
        assert self._inside is not None
        self._work = asyncio.create_task(asyncio.to_thread(self._inside.connect), name="network")

    async def finish(self) -> None:
        if self._work is not None:
            await asyncio.shield(self._work)
            self._close()

    async def give_up(self) -> None:
        while self._work is not None and not self._work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self._work])
        if self._work is not None and not self._work.cancelled():
            self._work.exception()  # the caller has another one, or this
        self._close()

    def _close(self) -> None:
        if self._inside is not None:
            self._inside.close()
            self._inside = None


async def connecting(
    host: NetworkHost, directory: Path, spec: AgentSpec, users: UserIds | None, *, own_loopback: bool = True
) -> Connecting:
    """What the specification asks for, promised; `own_loopback`: the runtime brings it up; `users`: open until `begin`.

    Errors are those of Network.reserve, NotFound `sandbox-not-found` and FailedPrecondition `sandbox-state` for a
    sandbox to share with that is not there, or does not run."""
    match spec.network.mode:
        case "none":
            return (Connecting if own_loopback else _Loopback)(directory, spec)
        case "host":
            return _HostNetwork(directory, spec)
        case "agent":
            return await _share(host, directory, spec)
    network = host.network()
    promised = await asyncio.to_thread(network.reserve, directory, spec.network)
    own = promised.hosts.format(name=spec.hostname)
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{own}"
    return _Bridged(directory, spec, network, hosts, promised.resolv_conf, users)


async def _share(host: NetworkHost, directory: Path, spec: AgentSpec) -> Connecting:
    other = SandboxId(spec.network.sandbox)
    if not (host.sandboxes / other).is_dir():
        raise NotFound(
            f"no sandbox {other} of the {host.backend} runtime, whose network could be shared",
            code="sandbox-not-found",
            hint="both need the same runtime, one that shares networks",
            sandbox=other,
        )
    pid = await host.running(other)
    if pid is None:
        raise FailedPrecondition(
            f"sandbox {other}, whose network is to be shared, does not run",
            code="sandbox-state",
            sandbox=other,
        )
    return _Shared(directory, spec, host.sandboxes / other, pid)


async def release(host: NetworkHost, id: SandboxId) -> None:
    """Take back what the network had promised to a sandbox that has ended."""
    directory = host.sandboxes / id
    if (directory / "network.json").exists():
        await asyncio.to_thread(host.network().release, directory)
