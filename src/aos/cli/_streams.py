"""The bytes between our standard streams and a process: conmon's attach socket on one side, 0, 1 and 2 on the other.

Writes block, and that is the back-pressure: a slow reader slows the agent down, nothing is buffered or lost. Signal
handlers run all the same, in between (PEP 475).
"""

from __future__ import annotations

import posix
import select
from _socket import SHUT_WR, socket

from aos.cli._terminal import dimensions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._node import Answer

__all__ = ["CLOSED", "DETACHED", "ENDED", "pump", "resize", "write_all"]

ENDED = "ended"
"""The process has ended and everything it wrote has been written."""
DETACHED = "detached"
"""The person typed the detach keys."""
CLOSED = "closed"
"""Whoever read our standard output went away."""

_PACKET = 65536
"""More than conmon ever puts into a packet (8 KiB and the stream's number)."""
_SILENCE = 2000
"""Milliseconds to wait for the end of a stream after the end of its process is known."""
_INPUT = 8192
"""Less than conmon takes from a packet at once (32 KiB)."""


def pump(connection: socket, answer: Answer, *, stdin: bool, detach: bytes = b"") -> str:
    """Carry bytes until the process ends, the person detaches, or our reader is gone.

    `connection`: conmon's attach socket. `stdin`: forward standard input, and its end; `detach`: but for these
    keys. `answer`: the call that tells how the process ended. Its socket is watched, because a process that
    could not be started, or whose supervisor died, says nothing.
    """
    descriptor = connection.fileno()
    pending = b""
    """What was read from standard input and conmon has not taken yet: at most one packet."""
    held = b""
    """The beginning of the detach keys, until the next key decides."""
    typing, errors = stdin, True
    connection.setblocking(False)
    while True:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if pending else 0))
        if typing and not pending:
            poll.register(0, select.POLLIN)
        if not answer.known:
            poll.register(answer.descriptor, select.POLLIN)
        ready = dict(poll.poll(_SILENCE if answer.known else None))
        if not ready:
            return ENDED
        if not answer.known and answer.descriptor in ready:
            answer.advance()
        if 0 in ready:
            typed = _read_input()
            if typed is None:
                typing = False
                _close_input(connection)
            else:
                typed = held + typed
                if detach and detach in typed:
                    return DETACHED
                held = typed[-1:] if detach and typed.endswith(detach[:1]) else b""
                pending = typed[: len(typed) - len(held)]
        if pending:
            try:
                connection.send(pending)
                pending = b""
            except BlockingIOError:
                pass  # what is pending is tried again when there is room
            except OSError:  # the process no longer reads; what it says still matters
                pending, typing = b"", False
        if not ready.get(descriptor, 0) & ~select.POLLOUT:
            continue
        try:
            packet = connection.recv(_PACKET)
        except BlockingIOError:
            continue
        except ConnectionResetError:
            continue  # told once, before what is still queued: conmon went with input unread
        if not packet:
            return ENDED
        if packet[0] == 2:
            try:
                write_all(1, packet[1:])
            except BrokenPipeError:
                return CLOSED
        elif packet[0] == 3 and errors:
            try:
                write_all(2, packet[1:])
            except BrokenPipeError:
                errors = False


def resize(control: int | None) -> None:
    """Give the process's terminal the size of ours."""
    size = dimensions()
    if control is not None and size is not None:
        try:
            posix.write(control, b"1 %d %d\n" % size)
        except OSError:
            return  # the process is gone; its end is about to be read


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(descriptor, view) :]
        except BlockingIOError:  # somebody made our standard output non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _read_input() -> bytes | None:
    """Read what there is; None at the end, also when the terminal is gone."""
    try:
        return posix.read(0, _INPUT) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def _close_input(connection: socket) -> None:
    try:
        connection.shutdown(SHUT_WR)
    except OSError:
        return  # it has ended
