"""What all subjects share: how a case is chosen, limited in time and checked for what it left; and sandboxes to try."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from aos.ids import SandboxId
from aos.runtime.spec import AgentSpec, ProcessSpec, Rootfs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from aos.runtime.protocol import Runtime, RuntimeInfo, Stdio
    from aos.runtime.state import ExitStatus, SandboxState
    from aos.testing.runtime.kit import Kit

__all__ = ["Cases", "Run", "case", "collect", "needs", "said", "whole_lines"]

_SECONDS = 30
_SETTLE = 5.0
"""Seconds until what ends by itself (a process that was told to, a cgroup that empties) has to be gone."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a command went."""

    status: ExitStatus
    out: bytes
    err: bytes


def case(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test, with a time limit: nothing here may hang."""

    @functools.wraps(test)
    def run(self: Cases, kit: Kit, **more: Any) -> None:
        asyncio.run(asyncio.wait_for(test(self, kit, **more), _SECONDS))

    return run


def needs(*capabilities: str) -> Callable[[Any], Any]:
    """Of a case, or of all cases of a class: what a backend must declare for it to apply."""

    def mark(what: Any) -> Any:
        what.needs = frozenset(capabilities) | getattr(what, "needs", frozenset())
        return what

    return mark


async def collect(stdio: Stdio, input: bytes | None = None) -> tuple[bytes, bytes]:
    """Send input and its end (None: neither) while both streams are read to theirs."""
    if stdio.control is not None:
        os.close(stdio.control)
    loop = asyncio.get_running_loop()
    streams = {2: bytearray(), 3: bytearray()}

    async def send(connection: socket.socket, data: bytes) -> None:
        for start in range(0, len(data), 8192):
            await loop.sock_sendall(connection, data[start : start + 8192])
        connection.shutdown(socket.SHUT_WR)

    with socket.socket(fileno=stdio.socket) as connection:
        connection.setblocking(False)
        sending = asyncio.create_task(send(connection, input)) if input is not None else None
        while True:
            try:
                packet = await loop.sock_recv(connection, 1 << 16)
            except ConnectionResetError:
                continue  # it did not want all of our input; what it had said comes after this
            if not packet:
                break
            streams[packet[0]] += packet[1:]
        if sending is not None:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, BrokenPipeError, ConnectionResetError):
                await sending
    return bytes(streams[2]), bytes(streams[3])


async def said(stdio: Stdio, wanted: bytes) -> bytes:
    """Read from a connection until the wanted was said; it stays open."""
    loop = asyncio.get_running_loop()
    heard = b""
    with socket.socket(fileno=os.dup(stdio.socket)) as connection:
        connection.setblocking(False)
        while wanted not in heard:
            packet = await loop.sock_recv(connection, 1 << 16)
            assert packet, f"it ended after {heard!r}, without {wanted!r}"
            heard += packet[1:]
    return heard


def whole_lines(log: str) -> list[tuple[str, str]]:
    """Stream and text of each line; a writer may have been cut off in the middle of one, and gone on."""
    begun = {"stdout": "", "stderr": ""}
    found = []
    for _, stream, tag, text in (line.split(" ", 3) for line in log.split("\n")[:-1]):
        begun[stream] += text
        if tag == "F":
            found.append((stream, begun[stream]))
            begun[stream] = ""
    return found


class Cases:
    """The base of each subject."""

    _info: RuntimeInfo
    _before: frozenset[str] | None = None

    @pytest.fixture(autouse=True)
    def applies_and_leaves_nothing(self, kit: Kit, request: pytest.FixtureRequest) -> Iterator[None]:
        """Skip what the backend does not declare, and say so; fail what leaves a trace."""
        cls = type(self)
        if "_info" not in cls.__dict__:
            cls._info = asyncio.run(kit.make().info())
        subject = next((base for base in cls.__mro__ if request.function.__name__ in base.__dict__), cls)
        wanted: frozenset[str] = getattr(request.function, "needs", frozenset()) | subject.__dict__.get(
            "needs", frozenset()
        )
        self.applicable(*wanted)
        if cls._before is None:
            cls._before = kit.traces()
        yield
        deadline = time.monotonic() + _SETTLE
        while left := kit.traces() - cls._before:
            if time.monotonic() > deadline:
                asyncio.run(self._remove_all(kit))
                cls._before = None
                raise AssertionError("left behind:\n" + "\n".join(sorted(left)))
            time.sleep(0.02)

    def applicable(self, *capabilities: str) -> None:
        """Skip, and say why, unless the backend declares them all."""
        if missing := set(capabilities) - self._info.capabilities:
            pytest.skip(f"not applicable: {self._info.name} does not declare {', '.join(sorted(missing))}")

    async def _remove_all(self, kit: Kit) -> None:
        """So that one failure stays one."""
        runtime = kit.make()
        for sandbox in await runtime.list():
            await runtime.delete(sandbox.id, force=True)

    def spec(self, kit: Kit, program: str, *args: str, **process: Any) -> AgentSpec:
        return AgentSpec(self.process(kit, program, *args, **process), Rootfs(kit.layers))

    def process(self, kit: Kit, program: str, *args: str, **more: Any) -> ProcessSpec:
        return ProcessSpec(kit.command(program, *args), **more)

    def id(self) -> SandboxId:
        return SandboxId(f"case-{os.urandom(4).hex()}")

    @contextlib.asynccontextmanager
    async def created(self, runtime: Runtime, spec: AgentSpec) -> AsyncIterator[SandboxId]:
        id = self.id()
        await runtime.create(id, spec)
        try:
            yield id
        finally:
            await runtime.delete(id, force=True)

    @contextlib.asynccontextmanager
    async def running(self, runtime: Runtime, spec: AgentSpec) -> AsyncIterator[SandboxId]:
        async with self.created(runtime, spec) as id:
            await runtime.start(id)
            yield id

    async def run(self, runtime: Runtime, spec: AgentSpec, input: bytes | None = None) -> Run:
        async with self.created(runtime, spec) as id:
            stdio = await runtime.attach(id)
            await runtime.start(id)
            out, err = await collect(stdio, input)
            return Run(await runtime.wait(id), out, err)

    async def output(self, kit: Kit, spec: AgentSpec) -> str:
        """What a command that succeeds prints."""
        run = await self.run(kit.make(), spec)
        assert (run.status.code, run.err) == (0, b""), run
        return run.out.decode()

    async def execute(
        self, runtime: Runtime, id: SandboxId, process: ProcessSpec, input: bytes | None = None
    ) -> Run:
        made = await runtime.exec(id, process, attach=True)
        assert made.stdio is not None
        status, (out, err) = await asyncio.gather(runtime.start_exec(id, made.id), collect(made.stdio, input))
        return Run(status, out, err)

    async def state(self, runtime: Runtime, id: SandboxId) -> SandboxState:
        return {sandbox.id: sandbox.state for sandbox in await runtime.list()}[id]

    async def ids(self, runtime: Runtime) -> list[SandboxId]:
        return [sandbox.id for sandbox in await runtime.list()]

    async def logged(self, runtime: Runtime, id: SandboxId, wanted: str) -> list[str]:
        """The log's whole lines, once the wanted one is among them."""
        while True:
            texts = [text for _, text in whole_lines((await runtime.logs(id)).read_text())]
            if wanted in texts:
                return texts
            await asyncio.sleep(0.01)

    async def counted(self, runtime: Runtime, id: SandboxId, beyond: int = 0) -> list[int]:
        """The numbers that `count` has written, once there is one beyond."""
        while True:
            numbers = [int(text) for _, text in whole_lines((await runtime.logs(id)).read_text())]
            if numbers and numbers[-1] > beyond:
                return numbers
            await asyncio.sleep(0.02)
