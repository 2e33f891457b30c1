"""One question to a process, as a probe puts it: a command in its sandbox, an HTTP request, a TCP connection.

HTTP and TCP go to 127.0.0.1 of its network namespace. A socket belongs to the namespace of the thread that makes it,
for ever; so a thread enters, makes one, and ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from typing import TYPE_CHECKING

from aos.node.inside import Outcome

if TYPE_CHECKING:
    from aos.kernel.process.health import HttpTarget

__all__ = ["ask_http", "ask_tcp"]

_CLONE_NEWNET = 0x40000000
"""linux/sched.h."""
_HEAD = 16 << 10
"""Bytes of an answer that are looked at."""


async def ask_http(namespace: int | None, target: HttpTarget, seconds: float) -> Outcome:
    """Good: an answer with a status from 200 to 399, as for Kubernetes. `namespace`: a descriptor; None: the host's."""
    request = (
        f"GET {target.path} HTTP/1.1\r\nHost: localhost:{target.port}\r\nUser-Agent: aos-probe\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    answer = b""
    try:
        async with asyncio.timeout(seconds):
            with await _connect(namespace, target.port) as stream:
                await loop.sock_sendall(stream, request.encode("ascii"))
                while len(answer) < _HEAD and (data := await loop.sock_recv(stream, 4096)):
                    answer += data
                    if b"\n" in answer and answer.count(b"\n") > 64:
                        break
    except TimeoutError:
        if b"\n" not in answer:
            return Outcome(False, "", f"no answer from port {target.port} within {seconds:g} s")
    except OSError as error:
        if b"\n" not in answer:
            return Outcome(False, "", f"port {target.port}: {_why(error)}")
    line = answer.partition(b"\n")[0].decode("latin-1").strip()
    words = line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        return Outcome(False, line[:200], f"port {target.port} does not speak HTTP")
    if 200 <= int(words[1]) <= 399:
        return Outcome(True, line[:200], "")
    return Outcome(False, line[:200], f"{target.path} answered {' '.join(words[1:])[:100]}")


async def ask_tcp(namespace: int | None, port: int, seconds: float) -> Outcome:
    """Good: a connection comes about."""
    try:
        async with asyncio.timeout(seconds):
            (await _connect(namespace, port)).close()
    except TimeoutError:
        return Outcome(False, "", f"no connection to port {port} within {seconds:g} s")
    except OSError as error:
        return Outcome(False, "", f"port {port}: {_why(error)}")
    return Outcome(True, f"port {port} is open", "")


def _why(error: OSError) -> str:
    """The system's words; asyncio has others."""
    return os.strerror(error.errno) if error.errno else str(error)


async def _connect(namespace: int | None, port: int) -> socket.socket:
    stream = socket.socket() if namespace is None else await _socket_in(namespace)
    try:
        stream.setblocking(False)
        await asyncio.get_running_loop().sock_connect(stream, ("127.0.0.1", port))
    except BaseException:
        stream.close()
        raise
    return stream


async def _socket_in(namespace: int) -> socket.socket:
    """A socket of another network namespace. OSError when it cannot be entered."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[socket.socket] = loop.create_future()

    def finish(result: socket.socket | OSError) -> None:
        if made.done():  # nobody waits any more
            if isinstance(result, socket.socket):
                result.close()
        elif isinstance(result, OSError):
            made.set_exception(result)
        else:
            made.set_result(result)

    def enter() -> None:
        result: socket.socket | OSError
        try:
            # Not `os.setns`, which is Python 3.12's. The thread ends, so it need not come back.
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            result = socket.socket()
        except OSError as error:
            result = error
        loop.call_soon_threadsafe(finish, result)

    threading.Thread(target=enter, name="probe", daemon=True).start()
    return await made
