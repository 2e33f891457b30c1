"""The verbs' way to the node: one connection for a verb, calls that outlive a restart of the daemon."""

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

from aos.errors import AosError, Unavailable, from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Answer", "Node", "call", "connect", "open", "wait"]


class Node:
    def __init__(self, start: bool = True) -> None:
        import json

        self._json = json
        state = posix.environ.get(b"AOS_STATE", b"/run/aos").decode()
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self._socket.connect(state + "/kernel/kernel.sock")
        except OSError as error:
            self._socket.close()
            raise Unavailable("the daemon is not running", code="daemon-not-running") from error
        self._buffer = b""
        self._next = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._fds: list[int] = []
        self._events: list[Any] = []

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def call(self, method: str, **params: object) -> Any:
        return self.receive(self.send(method, **params))

    def open(self, method: str, **params: object) -> tuple[Any, list[int]]:
        result = self.call(method, **params)
        fds, self._fds = self._fds, []
        return result, fds

    def send(self, method: str, **params: object) -> int:
        self._next += 1
        line = self._json.dumps({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        try:
            self._socket.sendall(line.encode() + b"\n")
        except OSError as error:
            raise Unavailable("lost", code="connection-lost") from error
        return self._next

    def receive(self, request: int) -> Any:
        while request not in self._answers:
            self._read()
        answer = self._answers.pop(request)
        if "error" in answer:
            raise from_wire(answer["error"])
        return answer["result"]

    def watch(self, method: str, **params: object) -> Iterator[Any]:
        request = self.send(method, **params)
        while True:
            while self._events:
                yield self._events.pop(0)
            if request in self._answers:
                self.receive(request)
                return
            self._read()

    def _read(self) -> None:
        data, ancillary, _, _ = self._socket.recvmsg(1 << 16, CMSG_LEN(16), MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                self._fds += memoryview(content).cast("i").tolist()
        if not data:
            raise Unavailable("lost", code="connection-lost")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = self._json.loads(line)
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._events.append(message["params"])


def connect(start: bool = True) -> Node:
    return Node(start)


def call(method: str, **params: object) -> Any:
    with connect() as node:
        return node.call(method, **params)


def open(method: str, **params: object) -> tuple[Any, list[int]]:
    with connect() as node:
        return node.open(method, **params)


class Answer:
    """A call that takes as long as an agent lives: when the connection breaks, it is made again."""

    def __init__(self, node: Node, method: str, **params: object) -> None:
        self._node = node
        self._call = (method, params)
        self._request = node.send(method, **params)
        self._result: Any = None
        self._error: AosError | None = None
        self.known = False
        """Whether it is there: a result, or an error."""

    @property
    def descriptor(self) -> int:
        """Readable when `advance` has something to do."""
        return self._node.fileno()

    def advance(self) -> None:
        """Take the answer, or ask again where the connection broke. Blocks until one of them is done."""
        try:
            self._result = self._node.receive(self._request)
        except Unavailable as error:
            if error.code != "connection-lost":
                self._error, self.known = error, True
                return
            self._node = connect()
            method, params = self._call
            self._request = self._node.send(method, **params)
            return
        except AosError as error:
            self._error = error
        self.known = True

    def result(self) -> Any:
        """Block for the answer; raise its error."""
        while not self.known:
            self.advance()
        if self._error is not None:
            raise self._error
        return self._result


def wait(agent: str) -> dict[str, Any]:
    """Block until an agent has finished; return the exit record of its last process."""
    with connect() as node:
        record: dict[str, Any] = Answer(node, "agent.wait", agent=agent).result()["exit"]
        return record
