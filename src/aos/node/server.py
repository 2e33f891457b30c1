"""The syscall server: JSON-RPC 2.0, a message a line, over a Unix stream socket, descriptors beside answers.

Who may call is who may open the socket: it is the owner's alone (mode 0600 in a 0700 directory), and the peer's
user is checked besides. A slow or silent client holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from aos.errors import AosError, Internal, PermissionDenied
from aos.kernel.syscalls import BadRequest, decode_params, decode_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.kernel.syscalls import Request

__all__ = ["LINE_LIMIT", "Answer", "Caller", "Handler", "Server"]

log = logging.getLogger("aosd")

LINE_LIMIT = 1 << 20
"""Bytes of one message."""
_encode = msgspec.json.Encoder().encode


class Answer:
    """A result with descriptors; they are closed once they were sent, or could not be."""

    def __init__(self, result: object, descriptors: Sequence[int] = ()) -> None:
        self.result = result
        self.descriptors = list(descriptors)

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


class Caller(Protocol):
    async def notify(self, method: str, params: object) -> None:
        """Send a notification; ConnectionError when the client is gone."""
        ...


class Handler(Protocol):
    def only_waits(self, method: str) -> bool:
        """Whether a call may be cancelled when its client is gone: it changes nothing."""
        ...

    async def handle(self, method: str, params: Any, caller: Caller) -> Answer: ...


class Server:
    """Serves inside `async with`; `run` ends when it is cancelled."""

    def __init__(self, listening: socket.socket, handler: Handler) -> None:
        self._listening = listening
        self._handler = handler
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        try:
            while True:
                try:
                    client, _ = await loop.sock_accept(self._listening)
                except OSError as error:  # too many descriptors: what is open goes on
                    log.error("cannot accept a connection: %s", error)
                    await asyncio.sleep(0.1)
                    continue
                client.setblocking(False)
                task = asyncio.create_task(_Connection(client, self._handler).serve(), name="connection")
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
        finally:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)


class _Connection:
    def __init__(self, client: socket.socket, handler: Handler) -> None:
        self._client = client
        self._handler = handler
        self._sending = asyncio.Lock()
        self._waits: set[asyncio.Task[bool]] = set()
        self._works: set[asyncio.Task[bool]] = set()

    async def serve(self) -> None:
        try:
            _check_peer(self._client)
            await self._read()
        except (ConnectionError, AosError) as error:
            log.debug("connection ended: %s", error)
        finally:
            for task in self._waits:
                task.cancel()
            # What changes something goes on to its end; only its answer is lost.
            await asyncio.gather(*self._waits, *self._works, return_exceptions=True)
            self._client.close()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray()
        while data := await loop.sock_recv(self._client, 1 << 16):
            buffer += data
            while (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                if len(line) > LINE_LIMIT:
                    break
                if not await self._take(line):
                    return
            if len(buffer) > LINE_LIMIT or end >= 0:
                large = BadRequest(
                    f"a message of more than {LINE_LIMIT} bytes", -32600, code="request-too-large"
                )
                await self._send({"id": None, "error": large.to_wire()})
                return

    async def _take(self, line: bytes) -> bool:
        """Start on one message; whether there may be more: not when the two speak different protocols."""
        try:
            request = decode_request(line)
        except BadRequest as error:
            await self._send({"id": error.request_id, "error": error.to_wire()})
            return True
        if request.method == "node.hello":  # answered before anything behind it begins: see docs/kernel.md
            return await self._answer(request)
        task = asyncio.create_task(self._answer(request), name=request.method)
        tasks = self._waits if self._handler.only_waits(request.method) else self._works
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return True

    async def _answer(self, request: Request) -> bool:
        """Whether it went well."""
        answer = Answer(None)
        message: dict[str, object]
        try:
            answer = await self._handler.handle(request.method, decode_params(request), self)
            message = {"id": request.id, "result": answer.result}
        except AosError as error:
            message = {"id": request.id, "error": error.to_wire()}
        except Exception as error:
            log.exception("%s failed", request.method)
            defect = Internal(
                f"{request.method}: {type(error).__name__}: {error}",
                hint="this is a defect of aosd; its log has more",
            )
            message = {"id": request.id, "error": defect.to_wire()}
        try:
            if request.id is not None:
                await self._send(message, answer.descriptors)
        except ConnectionError:
            pass
        finally:
            answer.close()
        return "result" in message

    async def notify(self, method: str, params: object) -> None:
        await self._send({"method": method, "params": params})

    async def _send(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        data = memoryview(_encode({"jsonrpc": "2.0", **message}) + b"\n")
        async with self._sending:
            if descriptors:
                data = data[await self._send_with(data, descriptors) :]
            await asyncio.get_running_loop().sock_sendall(self._client, data)

    async def _send_with(self, data: memoryview, descriptors: Sequence[int]) -> int:
        """Descriptors travel with the first byte."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return socket.send_fds(self._client, [data], list(descriptors))
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._client, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(self._client)


def _check_peer(client: socket.socket) -> None:
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    if uid not in (0, os.geteuid()):
        raise PermissionDenied(f"user {uid} may not call this kernel", code="not-the-owner")
