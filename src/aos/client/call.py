"""A connection to the kernel: JSON-RPC 2.0, a message a line, descriptors beside answers (docs/kernel.md)."""

from __future__ import annotations

import posix
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from aos import __version__
from aos.client.codec import decode, encode
from aos.client.where import state_directory
from aos.errors import PermissionDenied, Unavailable, from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["PROTOCOL", "Connection"]

PROTOCOL = 1
_DESCRIPTORS = CMSG_LEN(4 * 4)
_TRIES = 5


class Connection:
    """Calls may be pipelined: `send` several, then `receive` each. Not for use by several threads at once."""

    def __init__(self, start: bool) -> None:
        self._start = start
        self._socket = _reach(start)
        self._unheard: list[bytes] = []
        """What was sent while the greeting is unanswered: a node that ended before that has done none of it."""
        self._tries = _TRIES
        self._buffer = b""
        self._next = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._descriptors: list[int] = []
        self._notifications: list[dict[str, Any]] = []
        self._hello: int | None = self.send("node.hello", protocol=PROTOCOL, version=__version__)

    @classmethod
    def open(cls, *, start: bool = True) -> Connection:
        """Connect to this user's node, starting it when it does not run and `start` is set.

        Unavailable `daemon-not-running`; PermissionDenied `not-the-owner`; what the daemon said when it could
        not start. A version mismatch shows with the first answer.
        """
        return cls(start)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        for descriptor in self._descriptors:
            posix.close(descriptor)
        self._descriptors.clear()

    def fileno(self) -> int:
        return self._socket.fileno()

    def call(self, method: str, **params: object) -> Any:
        """Send and wait. The kernel's errors are raised as they are; Unavailable `connection-lost`."""
        return self.receive(self.send(method, **params))

    def call_with_descriptors(self, method: str, **params: object) -> tuple[Any, list[int]]:
        """As `call`; the descriptors that came beside the answer are the caller's to close."""
        result = self.call(method, **params)
        descriptors, self._descriptors = self._descriptors, []
        return result, descriptors

    def send(self, method: str, **params: object) -> int:
        """A number for `receive`."""
        self._next += 1
        text = encode({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        line = text.encode("utf-8", "surrogateescape") + b"\n"
        if self._next == 1 or self._hello is not None:
            self._unheard.append(line)
        try:
            self._socket.sendall(line)
        except OSError as error:
            self._again(error)
        return self._next

    def receive(self, request: int) -> Any:
        """The answer to one `send`; others that come first are kept."""
        while request not in self._answers:
            self._read()
        return _result(self._answers.pop(request))

    def take(self, request: int) -> bool:
        """Read once, which blocks unless the connection is readable; whether `receive` would not block now."""
        if request not in self._answers:
            self._read()
        return request in self._answers

    def watch(self, method: str, **params: object) -> Iterator[dict[str, Any]]:
        """The notifications' parameters until the call is answered."""
        request = self.send(method, **params)
        while True:
            while self._notifications:
                yield self._notifications.pop(0)
            if request in self._answers:
                self.receive(request)
                return
            self._read()

    def _read(self) -> None:
        """Take what has come; at least a part of one message."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(1 << 16, _DESCRIPTORS, MSG_CMSG_CLOEXEC)
        except ConnectionError as error:
            return self._again(error)
        for level, kind, content in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                self._descriptors += memoryview(content).cast("i").tolist()
        if not data:
            return self._again(None)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = decode(line.decode())
            if message.get("method"):
                self._notifications.append(message["params"])
            elif message["id"] == self._hello:
                self._hello = None
                self._unheard.clear()
                _result(message)
            elif message["id"] is None:
                _result(message)  # the kernel could not read a message of ours
            else:
                self._answers[message["id"]] = message

    def _again(self, error: OSError | None) -> None:
        """The connection broke. When the node has not even greeted (it was killed, or is being restarted), ask
        the one that comes after it."""
        while self._unheard and self._tries:
            self._tries -= 1
            self._socket.close()
            self._socket = _reach(self._start)
            self._buffer = b""
            try:
                return self._socket.sendall(b"".join(self._unheard))
            except OSError as again:
                error = again
        raise Unavailable(
            "the connection to the node broke",
            code="connection-lost",
            hint="agents go on running; try again, and see the daemon's log (`aos node status`)",
        ) from error


def _reach(start: bool) -> socket:
    directory = state_directory(posix.environ) + "/kernel"
    connected = _connect(directory)
    if connected is None and start:
        from aos.client.start import start_daemon

        start_daemon()
        connected = _connect(directory)
    if connected is None:
        raise Unavailable(
            "the node's daemon is not running",
            code="daemon-not-running",
            hint="`aos node start` starts it; so does any verb that needs it",
        )
    return connected


def _connect(directory: str) -> socket | None:
    """By way of the directory's descriptor: the path may be longer than a socket address takes (107 bytes)."""
    try:
        at = posix.open(directory, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise _not_owner(directory) from error
    connected = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        connected.connect(f"/proc/self/fd/{at}/kernel.sock")
    except (FileNotFoundError, ConnectionRefusedError):
        connected.close()
        return None
    except PermissionError as error:
        connected.close()
        raise _not_owner(directory) from error
    finally:
        posix.close(at)
    return connected


def _result(message: dict[str, Any]) -> Any:
    if "error" in message:
        raise from_wire(message["error"])
    return message["result"]


def _not_owner(directory: str) -> PermissionDenied:
    return PermissionDenied(
        f"{directory}: the node belongs to another user",
        code="not-the-owner",
        hint="use that user's account, or set AOS_ROOT and AOS_STATE for a node of your own",
    )
