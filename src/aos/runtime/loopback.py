"""Connections to the loopback of a sandbox whose network is a namespace of this kernel.

A socket belongs to the namespace of the thread that makes it, for ever; so a thread enters, makes one, and ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading

__all__ = ["connect_loopback"]

_CLONE_NEWNET = 0x40000000
"""linux/sched.h."""


async def connect_loopback(pid: int, port: int) -> int:
    """A connected stream to 127.0.0.1 of a process's network namespace. OSError as of connect(2), or when it has ended."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ours = os.fstat(namespace).st_ino == os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116
        stream = socket.socket() if ours else await _socket_in(namespace)
    finally:
        os.close(namespace)
    with stream:
        stream.setblocking(False)
        await asyncio.get_running_loop().sock_connect(stream, ("127.0.0.1", port))
        return stream.detach()


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
