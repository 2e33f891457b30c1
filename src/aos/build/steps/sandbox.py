"""Run one command of a step in a sandbox of the build's runtime, and pass on what it writes."""

from __future__ import annotations

import asyncio
import collections
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.build.steps.task import step_failed
from aos.build.workspace.workspace import SANDBOX_PREFIX
from aos.errors import AosError
from aos.ids import SandboxId
from aos.runtime.spec import AgentSpec, Mount, NetworkSpec, ProcessSpec, Rootfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.build.steps.task import Task
    from aos.redaction import Redaction
    from aos.runtime.spec import NetworkMode
    from aos.runtime.state import ExitStatus

__all__ = ["Command", "Lines", "run_command"]

_TAIL = 40  # lines of output kept for the error
_PACKET = 1 << 16  # conmon's packets are at most 8 KiB and one byte
_LONGEST_LINE = 1 << 16
_COULD_NOT_START = ("entrypoint-not-found", "entrypoint-not-executable", "user-unknown")


@dataclass(frozen=True, slots=True)
class Command:
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    network: NetworkMode = "none"
    noise: str = ""
    """What lines begin with (a regular expression) that explain no failure: they are shown, and not repeated."""


async def run_command(task: Task, command: Command, redact: Redaction | None = None) -> None:
    """Run to the end on top of the task's files; what it writes goes to the task's upper directory. Of its output
    nobody sees a line, and no disk, that `redact` has not seen.

    Raise Aborted (`step-failed`, with `exit_code` in its subject) unless it exits with 0, and whatever the
    runtime raises. The sandbox is gone afterwards, also when this is cancelled.
    """
    around = task.around
    runtime = around.runtime
    id = SandboxId(f"{SANDBOX_PREFIX}{around.workspace.directory.name}-{around.ids.fresh()}")
    spec = AgentSpec(
        process=ProcessSpec(args=command.args, env=command.env, cwd=command.cwd, user=command.user),
        rootfs=Rootfs(layers=task.lower_layers, upper=task.upper),
        hostname="build",
        mounts=command.mounts,
        network=NetworkSpec(command.network),
        log=Path(os.devnull),  # it is read as it is written
    )
    lines = Lines(task.output, redact, command.noise)
    try:
        try:
            await runtime.create(id, spec)
            stdio = await runtime.attach(id)
            if stdio.control is not None:
                os.close(stdio.control)
            with socket.socket(fileno=stdio.socket) as stream:
                stream.setblocking(False)
                await runtime.start(id)
                await _forward(stream, lines)
            status = await runtime.wait(id)
        finally:
            lines.end()
            await _delete(task, id)
    except AosError as error:
        if error.code not in _COULD_NOT_START:
            raise
        raise step_failed(
            task.vertex, f"could not start: {error.message}{_about_shell(command)}", lines.tail, exit_code=127
        ) from error
    if status.code != 0:
        raise step_failed(task.vertex, _how(status), lines.tail, exit_code=status.shell_code)


async def _forward(stream: socket.socket, lines: Lines) -> None:
    """Until the end of file: each packet is one byte (2: output, 3: error) and data."""
    loop = asyncio.get_running_loop()
    while packet := await loop.sock_recv(stream, _PACKET):
        lines.feed(packet[0], packet[1:])
        # sock_recv of what is there already lets nothing else run: no signal, no other step
        await asyncio.sleep(0)


async def _delete(task: Task, id: SandboxId) -> None:
    """Delete also while being cancelled: a second Ctrl-C must not leave a sandbox behind."""
    deleting = asyncio.ensure_future(task.around.runtime.delete(id, force=True))
    cancelled: asyncio.CancelledError | None = None
    while not deleting.done():
        try:
            await asyncio.shield(deleting)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:
            break
    task.around.workspace.left |= deleting.exception() is not None
    if cancelled is not None:
        raise cancelled
    deleting.result()


def _about_shell(command: Command) -> str:
    shell = command.args[0] == "/bin/sh"
    return (
        "; a command that is one text needs a shell, exec form ([program, argument]) needs none"
        if shell
        else ""
    )


def _how(status: ExitStatus) -> str:
    if status.cause == "oom":
        return "ran out of memory"
    if status.code is not None:
        return f"failed with exit code {status.code}"
    if status.signal is not None:
        return f"was killed by signal {status.signal}"
    return f"ended in an unknown way ({status.detail})" if status.detail else "ended in an unknown way"


class Lines:
    """Bytes of two streams become lines, in the order they arrived."""

    def __init__(self, output: Callable[[str], None], redact: Redaction | None, noise: str = "") -> None:
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._output = output
        self._noise = re.compile(noise) if noise else None
        self._redact = redact
        self._partial: dict[int, bytes] = {}

    def feed(self, stream: int, data: bytes) -> None:
        *whole, rest = (self._partial.get(stream, b"") + data).split(b"\n")
        for line in whole:
            self._say(line)
        if len(rest) > _LONGEST_LINE:
            rest, end = self._cut(rest)
            self._say(rest)
            rest = end
        self._partial[stream] = rest

    def end(self) -> None:
        for rest in self._partial.values():
            if rest:
                self._say(rest)
        self._partial.clear()

    def _cut(self, line: bytes) -> tuple[bytes, bytes]:
        """Two pieces of a line, such that no secret is cut in two."""
        if self._redact is None:
            return line, b""
        line = self._redact(line)
        at = len(line) - self._redact.longest
        return line[:at], line[at:]

    def _say(self, line: bytes) -> None:
        if self._redact is not None:
            line = self._redact(line)
        text = line.decode(errors="replace")
        if self._noise is None or not self._noise.match(text):
            self.tail.append(text)
        self._output(text)
