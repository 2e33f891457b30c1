"""A process of the memory backend, as its program sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Never

from aos.runtime.bundle import DEFAULT_PATH
from aos.runtime.protocol import Stdio
from aos.runtime.state import ExitStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aos.clock import Clock
    from aos.runtime.spec import ProcessSpec

__all__ = ["Exited", "MemoryProcess"]

_PACKET = 8192
"""Bytes; conmon's packets are no larger."""


class Exited(Exception):
    def __init__(self, status: ExitStatus) -> None:
        self.status = status


class MemoryProcess:
    """Its command, its streams, the signals sent to it."""

    def __init__(
        self,
        spec: ProcessSpec,
        hostname: str,
        log: Path | None,
        clock: Clock,
        going: asyncio.Event,
        *,
        leave_stdin_open: bool = False,
    ) -> None:
        """`going` is set while the sandbox is not paused."""
        self.spec = spec
        self.args = spec.args[1:]
        self.env = {"PATH": DEFAULT_PATH, **dict(spec.env)}
        self.hostname = hostname
        self.usage = Usage(cpu_seconds=0.0, memory_bytes=0, memory_peak_bytes=0, pids=1)
        self.ended_by = signal.SIGKILL
        """The signal, if one ended it."""
        self.rows, self.columns = 0, 0
        """Of the terminal, as the last client asked for."""
        self._log = log
        self._clock = clock
        self._going = going
        self._leave_stdin_open = leave_stdin_open
        self._clients: dict[asyncio.Queue[bytes | None], asyncio.Task[None]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._controls: set[int] = set()
        self._traps: dict[signal.Signals, Callable[[], None]] = {}
        self._input = asyncio.StreamReader()
        self._input_ended = not spec.stdin
        if self._input_ended:
            self._input.feed_eof()

    def print(self, text: str, *, error: bool = False) -> None:
        """Write a line to standard output or error."""
        self.write(text.encode() + b"\n", error=error)

    def write(self, data: bytes, *, error: bool = False) -> None:
        """Write to standard output or error: to the log, and to whoever is attached."""
        if self._log is not None:
            stream = "stderr" if error else "stdout"
            at = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
            with self._log.open("ab") as file:
                for line in data.splitlines(keepends=True) if b"\r" not in data else [data]:
                    tag = "F" if line.endswith(b"\n") else "P"
                    file.write(f"{at} {stream} {tag} ".encode() + line.removesuffix(b"\n") + b"\n")
        kind = b"\x03" if error and not self.spec.terminal else b"\x02"
        if self.spec.terminal:
            data = data.replace(b"\n", b"\r\n")
        for client in self._clients:
            for start in range(0, len(data), _PACKET):
                client.put_nowait(kind + data[start : start + _PACKET])

    async def read(self) -> bytes:
        """What there is of standard input, as it comes; nothing at its end."""
        data = await self._input.read(1 << 16)
        await self._going.wait()
        return data

    async def read_line(self) -> str:
        """A line of standard input without its end; empty at the end of file."""
        return (await self._input.readline()).decode().rstrip("\n")

    async def read_all(self) -> str:
        return (await self._input.read()).decode()

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and a pause end."""
        await asyncio.sleep(seconds)
        await self._going.wait()

    def exit(self, code: int) -> Never:
        raise Exited(ExitStatus("exited", code))

    def die(self, signum: signal.Signals) -> Never:
        raise Exited(ExitStatus("signaled", signal=signum))

    def run_out_of_memory(self) -> Never:
        raise Exited(ExitStatus("oom", signal=signal.SIGKILL))

    def trap(self, signum: signal.Signals, action: Callable[[], None]) -> None:
        """Do this at that signal, instead of ending."""
        self._traps[signum] = action

    def handles(self, signum: signal.Signals) -> bool:
        """Let the program handle a signal; whether it does. SIGKILL is not to be handled."""
        action = self._traps.get(signum) if signum != signal.SIGKILL else None
        if action is not None:
            action()
        return action is not None

    def connect(self) -> Stdio:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        reading = asyncio.create_task(self._feed(ours))
        self._clients[outbox] = reading
        sending = asyncio.create_task(self._send(ours, outbox))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        return Stdio(theirs.detach(), self._control() if self.spec.terminal else None)

    def _control(self) -> int:
        """The writing end of a pipe that takes sizes of the terminal."""
        ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._controls.add(ours)
        asyncio.get_running_loop().add_reader(ours, self._resize, ours)
        return theirs

    def _resize(self, control: int) -> None:
        words = os.read(control, 4096).split()
        if not words:
            self._forget(control)
        elif len(words) >= 3:
            self.ended_by = signal.SIGKILL
        """The signal, if one ended it."""
        self.rows, self.columns = int(words[-2]), int(words[-1])

    def _forget(self, control: int) -> None:
        self._controls.discard(control)
        asyncio.get_running_loop().remove_reader(control)
        os.close(control)

    async def _feed(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(client, _PACKET):
                if not self._input_ended:
                    self._input.feed_data(data)
        if not self._input_ended and not self._leave_stdin_open:
            self._input_ended = True
            self._input.feed_eof()

    async def _send(self, client: socket.socket, outbox: asyncio.Queue[bytes | None]) -> None:
        """Whatever was written, as fast as the client reads; then the end of file."""
        loop = asyncio.get_running_loop()
        with client, contextlib.suppress(OSError):
            while (packet := await outbox.get()) is not None:
                await loop.sock_sendall(client, packet)
            while client.recv(_PACKET):
                pass  # what nobody read is forgotten first, or the client would lose what it has not read either
        if (reading := self._clients.pop(outbox, None)) is not None:
            reading.cancel()

    def close(self) -> None:
        """The end of file for everybody, after everything that was written."""
        for outbox, reading in self._clients.items():
            reading.cancel()
            outbox.put_nowait(None)
        for control in [*self._controls]:
            self._forget(control)
