"""Netlink in the few forms that AOS speaks: messages of attributes, each acknowledged by the kernel.

Numbers are from include/uapi/linux/netlink.h. A socket belongs to the network namespace that its maker was in,
wherever it is used from later.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "ACK",
    "CREATE",
    "DUMP",
    "EXCLUSIVE",
    "NESTED",
    "Message",
    "Netlink",
    "NetlinkError",
    "attribute",
    "attributes",
    "be16",
    "be32",
    "nest",
    "text",
    "u32",
]

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
EXCLUSIVE, CREATE, APPEND = 0x200, 0x400, 0x800
NESTED = 0x8000
_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _ADD_MEMBERSHIP = 270, 10, 11, 1
_EXTENDED = 0x200
"""The flag of an error that carries attributes; the text is number 1 of them."""
_CAPPED = 0x100
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SECONDS = 10.0
"""How long the kernel may take to answer; it waits for locks that others of the host hold."""


class NetlinkError(OSError):
    """The kernel refused a message; `index` says which of those that were sent together."""

    def __init__(self, number: int, said: str, index: int) -> None:
        super().__init__(number, said or os.strerror(number))
        self.index = index


@dataclass(frozen=True, slots=True)
class Message:
    type: int
    flags: int
    body: bytes


class Netlink:
    """One socket; not for two threads at once."""

    def __init__(self, family: int, *, groups: Sequence[int] = ()) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self.socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self.socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self.socket.bind((0, 0))
        for group in groups:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self.socket.settimeout(_SECONDS)
        self.port: int = self.socket.getsockname()[0]
        """What the kernel calls this socket, in messages that it caused too."""
        self._sequence = 0

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tell(self, *messages: Message) -> None:
        """Send and have each acknowledged; NetlinkError for the first that is refused. The others are done."""
        first = self._send(messages)
        waiting = {first + index for index, message in enumerate(messages) if message.flags & ACK}
        refused: NetlinkError | None = None
        while waiting:
            for type, flags, sequence, body in self._receive():
                if type != _ERROR or not first <= sequence < first + len(messages):
                    continue
                waiting.discard(sequence)
                number = -struct.unpack_from("=i", body)[0]
                if number and refused is None:
                    refused = NetlinkError(number, _said(flags, body), sequence - first)
                if number and not messages[sequence - first].flags & ACK:
                    waiting.clear()  # a batch that was refused as a whole
        if refused is not None:
            raise refused

    def ask(self, message: Message) -> bytes:
        """The body of the one answer to a question."""
        first = self._send([message])
        while True:
            for type, flags, sequence, body in self._receive():
                if sequence != first:
                    continue
                if type == _ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", body)[0], _said(flags, body), 0)
                return body

    def dump(self, message: Message) -> list[bytes]:
        """The bodies of all answers to a question for a list. One that was changed meanwhile is asked for again."""
        while True:
            first, found, torn = self._send([message]), [], False
            done = False
            while not done:
                for type, flags, sequence, body in self._receive():
                    if sequence != first:
                        continue
                    torn = torn or bool(flags & _DUMP_INTERRUPTED)
                    if type == _ERROR:
                        raise NetlinkError(-struct.unpack_from("=i", body)[0], _said(flags, body), 0)
                    if type == _DONE:
                        done = True
                    else:
                        found.append(body)
            if not torn:
                return found

    def events(self) -> Iterator[tuple[int, int, bytes]]:
        """(type, port of who caused it, body) of what has arrived; OSError ENOBUFS when some were lost."""
        data = self.socket.recv(1 << 18)
        for type, _, _, port, body in _split(data):
            yield type, port, body

    def _send(self, messages: Sequence[Message]) -> int:
        first = self._sequence + 1
        data = bytearray()
        for message in messages:
            self._sequence += 1
            length = _HEADER.size + len(message.body)
            flags = message.flags | REQUEST
            data += _HEADER.pack(length, message.type, flags, self._sequence, self.port)
            data += message.body + bytes(-length % 4)
        if len(data) > 200_000:  # more than a socket's buffer holds by default
            self.socket.setsockopt(socket.SOL_SOCKET, 32, len(data) * 2)  # SO_SNDBUFFORCE
        self.socket.send(data)
        return first

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        for type, flags, sequence, _, body in _split(self.socket.recv(1 << 18)):
            yield type, flags, sequence, body


def _split(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, type, flags, sequence, port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield type, flags, sequence, port, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _said(flags: int, body: bytes) -> str:
    if not flags & _EXTENDED:
        return ""
    start = 4 + _HEADER.size
    if not flags & _CAPPED:
        start = 4 + ((struct.unpack_from("=I", body, 4)[0] + 3) & ~3)
    return attributes(body[start:]).get(1, b"").rstrip(b"\0").decode(errors="replace")


def attribute(type: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, type) + value + bytes(-length % 4)


def nest(type: int, *members: bytes) -> bytes:
    return attribute(type | NESTED, b"".join(members))


def text(type: int, value: str) -> bytes:
    return attribute(type, value.encode() + b"\0")


def u32(type: int, value: int) -> bytes:
    return attribute(type, struct.pack("=I", value))


def be32(type: int, value: int) -> bytes:
    return attribute(type, struct.pack("!I", value))


def be16(type: int, value: int) -> bytes:
    return attribute(type, struct.pack("!H", value))


def attributes(data: bytes) -> dict[int, bytes]:
    """By number, without the bits that say nested or big-endian; of equal ones the last."""
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, type = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[type & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found
