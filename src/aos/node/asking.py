"""One question to a process, as a probe puts it: a command in its sandbox, an HTTP request, a TCP connection.

HTTP and TCP go to 127.0.0.1 of its sandbox, by a connection that the runtime makes (Runtime.connect).
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from aos.errors import AosError
from aos.node.inside import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aos.kernel.process.health import HttpTarget

    Connect = Callable[[int], Awaitable[int]]
    """A connected stream to a port; errors are those of Runtime.connect."""

__all__ = ["ask_http", "ask_tcp"]

_HEAD = 16 << 10
"""Bytes of an answer that are looked at."""


async def ask_http(connect: Connect, target: HttpTarget, seconds: float) -> Outcome:
    """Good: an answer with a status from 200 to 399, as for Kubernetes."""
    request = (
        f"GET {target.path} HTTP/1.1\r\nHost: localhost:{target.port}\r\nUser-Agent: aos-probe\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    answer = b""
    try:
        async with asyncio.timeout(seconds):
            with socket.socket(fileno=await connect(target.port)) as stream:
                stream.setblocking(False)
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
    except AosError as error:
        return Outcome(False, "", error.message)
    line = answer.partition(b"\n")[0].decode("latin-1").strip()
    words = line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        return Outcome(False, line[:200], f"port {target.port} does not speak HTTP")
    if 200 <= int(words[1]) <= 399:
        return Outcome(True, line[:200], "")
    return Outcome(False, line[:200], f"{target.path} answered {' '.join(words[1:])[:100]}")


async def ask_tcp(connect: Connect, port: int, seconds: float) -> Outcome:
    """Good: a connection comes about."""
    try:
        async with asyncio.timeout(seconds):
            os.close(await connect(port))
    except TimeoutError:
        return Outcome(False, "", f"no connection to port {port} within {seconds:g} s")
    except OSError as error:
        return Outcome(False, "", f"port {port}: {_why(error)}")
    except AosError as error:
        return Outcome(False, "", error.message)
    return Outcome(True, f"port {port} is open", "")


def _why(error: OSError) -> str:
    """The system's words; asyncio has others."""
    return os.strerror(error.errno) if error.errno else str(error)
