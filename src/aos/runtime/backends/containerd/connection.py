"""The connection to containerd: its services, and its refusals in our words.

The one module that imports gRPC, and it does when somebody connects: a host that uses another backend pays nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from typing import TYPE_CHECKING, Any

from aos.errors import (
    AlreadyExists,
    AosError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from aos.runtime.backends.containerd.finish import finished

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import ModuleType

    from aos.runtime.backends.containerd.settings import ContainerdConfig

__all__ = ["CALL_SECONDS", "Connection", "Service"]

CALL_SECONDS = 60.0
"""How long a call may take before containerd, or a shim, counts as hung."""

_CONNECT_MILLISECONDS = 10_000
"""How long the other side may take to say its first word. gRPC calls that the least time between attempts, which it is not:
one that fails is tried again after the backoff (grpc, doc/connection-backoff.md: MIN_CONNECT_TIMEOUT)."""
_OLDEST = (1, 6)
_MESSAGE_LIMIT = 16 << 20  # containerd's own default

_SERVICES = ("Tasks", "Containers", "Snapshots", "Content", "Images", "Leases", "Diff", "Events", "Version")


class Service:
    """One gRPC service of containerd: its methods take a request and return the answer, or raise ours."""

    def __init__(self, connection: Connection, stub: Any) -> None:
        self._connection = connection
        self.stub = stub

    async def call(
        self, method: str, request: Any, *, seconds: float | None = CALL_SECONDS, lease: str = ""
    ) -> Any:
        """AosError otherwise; `seconds`: None for what may take for ever; `lease`: keeps what the call makes.

        A call that has a time limit is finished also for who is cancelled: containerd would go on with it anyway."""
        metadata = self._connection.metadata(lease)

        async def called() -> Any:
            await self._connection.recover()
            return await getattr(self.stub, method)(request, timeout=seconds, metadata=metadata)

        step = self._translated(called())
        return await (step if seconds is None else finished(step, f"containerd's {method}"))

    async def _translated(self, called: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await called
        except Exception as error:
            raise self._connection.translate(error) from error


class Connection:
    """Made on first use, once for each event loop."""

    def __init__(self, config: ContainerdConfig) -> None:
        self._config = config
        self._loop: asyncio.AbstractEventLoop | None = None
        self._services: dict[str, Service] = {}
        self._channel: Any = None
        self._ready: asyncio.Task[str] | None = None

    async def service(self, name: str) -> Service:
        """A service by its name in containerd's API."""
        await self.version()
        return self._services[name]

    async def version(self) -> str:
        """The version of containerd, which is asked for once; errors as for `_open`."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._ready is None or _failed(self._ready):
            self._loop = loop
            self._ready = loop.create_task(self._open(), name="connection to containerd")
        return await asyncio.shield(self._ready)

    async def _open(self) -> str:
        """FailedPrecondition `containerd-client-missing`, `runtime-missing`, `containerd-version`;
        PermissionDenied `containerd-refused`; Unavailable `containerd-unavailable`."""
        if (problem := probe(self._config.address)) is not None:
            raise problem  # before what takes longer
        grpc, stubs = _import()
        self._channel = grpc.aio.insecure_channel(
            f"unix:{self._config.address}",
            options=[
                ("grpc.default_authority", "localhost"),  # the path, its default, is no host name for Go
                ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", _CONNECT_MILLISECONDS),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self._services = {name: Service(self, stub(self._channel)) for name, stub in stubs.items()}
        from google.protobuf.empty_pb2 import Empty

        answer = await self._services["Version"].call("Version", Empty(), seconds=10)
        text = str(answer.version)
        numbers = re.match(r"v?(\d+)\.(\d+)", text)
        if numbers is not None and tuple(map(int, numbers.groups())) < _OLDEST:
            raise FailedPrecondition(
                f"containerd at {self._config.address} is version {text}; 1.6 is the oldest that works",
                code="containerd-version",
                hint="install a newer one, or name another with [containerd] address",
                version=text,
            )
        return text

    def metadata(self, lease: str = "") -> tuple[tuple[str, str], ...]:
        base = (("containerd-namespace", self._config.namespace),)
        return (*base, ("containerd-lease", lease)) if lease else base

    async def recover(self) -> None:
        """Connect at once where gRPC would still wait, after failures, and refuse calls meanwhile."""
        if self._channel.get_state().name == "TRANSIENT_FAILURE":
            if (problem := probe(self._config.address)) is not None:
                raise problem
            await self.ready()

    async def ready(self) -> None:
        """Once containerd answers again, where it has answered before."""
        if self._channel is not None:
            await self._channel.channel_ready()

    def translate(self, error: Exception) -> Exception:
        """The error to raise instead; what does not come from gRPC stays as it is."""
        code = getattr(error, "code", None)
        if isinstance(error, AosError) or not callable(code):
            return error
        name = str(getattr(code(), "name", code()))
        said = str(getattr(error, "details", lambda: "")() or "it gave no reason")
        if name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            return self._unavailable(name, said)
        kind = {
            "NOT_FOUND": NotFound,
            "ALREADY_EXISTS": AlreadyExists,
            "INVALID_ARGUMENT": InvalidArgument,
            "FAILED_PRECONDITION": FailedPrecondition,
            "RESOURCE_EXHAUSTED": ResourceExhausted,
            "PERMISSION_DENIED": PermissionDenied,
        }.get(name, Internal)
        return kind(said, code="runtime-failed", hint="containerd's own log says more")

    def _unavailable(self, name: str, said: str) -> AosError:
        problem = probe(self._config.address)
        if problem is not None:
            return problem
        if name == "DEADLINE_EXCEEDED":
            return Unavailable(
                f"containerd did not answer within {CALL_SECONDS:g} s",
                code="tool-timeout",
                hint="see whether the host is overloaded, and what containerd's own log says",
            )
        return Unavailable(f"containerd: {said}", code="containerd-unavailable", hint="try again")


def probe(address: str) -> AosError | None:
    """Why nobody can be reached there; None when somebody can."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(address)
        except OSError as error:
            return _unreachable(address, error)
    return None


def _unreachable(address: str, error: OSError) -> AosError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(
            f"containerd's socket {address} may not be used by user {os.geteuid()}",
            code="containerd-refused",
            hint="run the node as root",
            address=address,
        )
    if error.errno == errno.ENOENT:
        return FailedPrecondition(
            f"containerd is not here: there is no socket {address}",
            code="runtime-missing",
            hint="install and start it: `apt-get install containerd` on Debian and Ubuntu, `dnf install containerd` "
            "on Fedora; or set [containerd] address",
            address=address,
        )
    return Unavailable(
        f"containerd does not answer at {address}: {error.strerror or error}",
        code="containerd-unavailable",
        hint="start it (`systemctl start containerd`); agents that run go on meanwhile",
        address=address,
    )


def _failed(task: asyncio.Task[str]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _import() -> tuple[ModuleType, dict[str, Any]]:
    """gRPC, and the stubs by name."""
    try:
        import grpc.aio

        from aos.runtime.backends.containerd._api.services import (
            containers_pb2_grpc,
            content_pb2_grpc,
            diff_pb2_grpc,
            events_pb2_grpc,
            images_pb2_grpc,
            leases_pb2_grpc,
            snapshots_pb2_grpc,
            tasks_pb2_grpc,
            version_pb2_grpc,
        )
    except ImportError as error:
        raise FailedPrecondition(
            f"the client of containerd is not installed: {error}",
            code="containerd-client-missing",
            hint="install it with: pip install 'openos-aos[containerd]'",
        ) from error
    modules = (
        tasks_pb2_grpc,
        containers_pb2_grpc,
        snapshots_pb2_grpc,
        content_pb2_grpc,
        images_pb2_grpc,
        leases_pb2_grpc,
        diff_pb2_grpc,
        events_pb2_grpc,
        version_pb2_grpc,
    )
    return grpc, {
        name: getattr(module, f"{name}Stub") for name, module in zip(_SERVICES, modules, strict=True)
    }
