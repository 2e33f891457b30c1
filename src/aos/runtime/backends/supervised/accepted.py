"""Whether the other side of a Unix connection has been accepted yet.

A connection is made as soon as it waits in the listener's queue. conmon hands output to those that it has accepted, one
in each turn of its loop: what a process writes before that, such a client never hears. The kernel tells by
sock_diag(7): until accept(2) the peer of our socket has no inode (linux/unix_diag.h, UNIX_DIAG_PEER).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct

__all__ = ["accepted"]

_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST, _ERROR = 1, 2
_SHOW_PEER, _PEER = 4, 2
_ANY = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBHIIIII")
_ANSWER_SIZE = 16
_ATTRIBUTE = struct.Struct("=HHI")
_IMPATIENT = 20
"""How often it is asked without a pause, which would be a millisecond: conmon takes half of one."""


async def accepted(connection: int, seconds: float = 1.0) -> None:
    """Wait until it is, or `seconds` have passed, or this kernel does not tell."""
    for attempt in range(round(seconds * 1000)):
        if _peer(connection) != 0:
            return
        await asyncio.sleep(0.001 if attempt >= _IMPATIENT else 0)


def _peer(connection: int) -> int | None:
    """The inode of the peer, 0 before it is accepted; None: unknown."""
    question = _QUESTION.pack(socket.AF_UNIX, 0, 0, _ANY, os.fstat(connection).st_ino, _SHOW_PEER, _ANY, _ANY)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
            kernel.send(
                _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0) + question
            )
            answer = kernel.recv(4096)
    except OSError:
        return None
    if _HEADER.unpack_from(answer)[1] == _ERROR:
        return None
    at = _HEADER.size + _ANSWER_SIZE
    while at + _ATTRIBUTE.size <= len(answer):
        size, kind, inode = _ATTRIBUTE.unpack_from(answer, at)
        if kind == _PEER:
            return int(inode)
        at += (size + 3) & ~3
    return None
