"""The verbs' way to the node: one connection for a verb, calls that outlive a restart of the daemon."""

from __future__ import annotations

from aos.client.call import Connection
from aos.errors import AosError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Answer", "Connection", "call", "connect", "open", "wait"]


def connect(start: bool = True) -> Connection:
    return Connection.open(start=start)


def call(method: str, **params: object) -> Any:
    with connect() as node:
        return node.call(method, **params)


def open(method: str, **params: object) -> tuple[Any, list[int]]:
    with connect() as node:
        return node.call_with_descriptors(method, **params)


class Answer:
    """A call that takes as long as an agent lives: when the connection breaks, it is made again."""

    def __init__(self, node: Connection, method: str, **params: object) -> None:
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
        """Take what has come: the answer, or a part of it; ask again where the connection broke."""
        try:
            if not self._node.take(self._request):
                return
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
