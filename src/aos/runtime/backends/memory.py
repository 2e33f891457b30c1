"""The `memory` backend: sandboxes as coroutines in this process, for tests and simulation.

It isolates nothing and executes no image. A command's first word names a program that was registered; streams are
real sockets that speak the attach protocol, logs are real files, faults are injected by name. Deterministic as
far as its programs are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Never

from aos import errors
from aos.errors import AlreadyExists, AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.runtime.protocol import Exec, RuntimeInfo, Stdio
from aos.runtime.state import ExitStatus, ProcessInfo, Sandbox, SandboxState, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from aos.clock import Clock
    from aos.ids import SandboxId
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec

__all__ = ["MemoryProcess", "MemoryRuntime"]

_PACKET = 8192
"""Bytes; conmon's packets are no larger."""


class Exited(Exception):
    def __init__(self, status: ExitStatus) -> None:
        self.status = status


class MemoryProcess:
    """What a program sees: its command, its streams, the signals sent to it."""

    def __init__(self, spec: ProcessSpec, hostname: str, log: Path | None, clock: Clock) -> None:
        self.spec = spec
        self.args = spec.args[1:]
        self.env = dict(spec.env)
        self.hostname = hostname
        self.usage = Usage(cpu_seconds=0.0, memory_bytes=0, memory_peak_bytes=0, pids=1)
        self._log = log
        self._clock = clock
        self._clients: list[socket.socket] = []
        self._input = asyncio.StreamReader()
        if not spec.stdin:
            self._input.feed_eof()
        self._readers: set[asyncio.Task[None]] = set()

    def print(self, text: str, *, error: bool = False) -> None:
        """Write a line to standard output or error: to the log, and to whoever is attached."""
        data = text.encode() + b"\n"
        if self._log is not None:
            stream = "stderr" if error else "stdout"
            at = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{at} {stream} F {text}\n")
        kind = b"\x03" if error and not self.spec.terminal else b"\x02"
        for client in self._clients:
            with contextlib.suppress(OSError):
                for start in range(0, len(data), _PACKET):
                    client.send(kind + data[start : start + _PACKET])

    async def read_line(self) -> str:
        """A line of standard input without its end; empty at the end of file."""
        return (await self._input.readline()).decode().rstrip("\n")

    async def read_all(self) -> str:
        return (await self._input.read()).decode()

    def exit(self, code: int) -> Never:
        raise Exited(ExitStatus("exited", code))

    def run_out_of_memory(self) -> Never:
        raise Exited(ExitStatus("oom", signal=signal.SIGKILL))

    def connect(self) -> Stdio:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._clients.append(ours)
        reader = asyncio.create_task(self._feed(ours))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        control = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC) if self.spec.terminal else None
        return Stdio(theirs.detach(), control)

    async def _feed(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(client, _PACKET):
                if self.spec.stdin:
                    self._input.feed_data(data)
            if self.spec.stdin:
                self._input.feed_eof()

    def close(self) -> None:
        """The end of file for everybody, after everything that was written."""
        for reader in self._readers:
            reader.cancel()
        for client in self._clients:
            client.close()


@dataclass(slots=True)
class _Held:
    spec: AgentSpec
    log: Path
    process: MemoryProcess
    state: SandboxState = SandboxState.CREATED
    limits: Limits | None = None
    task: asyncio.Task[ExitStatus] | None = None
    ended: asyncio.Future[ExitStatus] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    execs: dict[str, MemoryProcess] = field(default_factory=dict)


class MemoryRuntime:
    """`world` outlives instances, as a host does: give two instances one world, and the second adopts."""

    def __init__(
        self,
        programs: Mapping[str, Callable[[MemoryProcess], Awaitable[int | None]]],
        logs: Path,
        clock: Clock,
        world: dict[SandboxId, _Held] | None = None,
    ) -> None:
        self._programs = programs
        self._logs = logs
        self._clock = clock
        self._world = {} if world is None else world
        self._execs = 0
        self.faults: dict[str, AosError] = {}
        """Call name -> the error that its next call raises."""

    @property
    def world(self) -> dict[SandboxId, _Held]:
        return self._world

    async def info(self) -> RuntimeInfo:
        capabilities = {
            "attach",
            "exec",
            "logs",
            "limits",
            "pause",
            "prepare",
            "stats",
            "terminal",
            "top",
            "update",
            "update-pids",
        }
        return RuntimeInfo("memory", "1", frozenset(capabilities), {}, "none")

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        self._fault("create")
        if id in self._world:
            raise AlreadyExists(f"sandbox {id} exists", code="sandbox-exists", sandbox=id)
        self._check(spec)
        self._program(spec.process)
        log = spec.log or self._logs / f"{id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        process = MemoryProcess(spec.process, spec.hostname, log, self._clock)
        self._world[id] = _Held(spec, log, process, limits=spec.limits)
        return Sandbox(id, SandboxState.CREATED, os.getpid())

    def _check(self, spec: AgentSpec) -> None:
        if not spec.process.args:
            raise InvalidArgument("there is no command to run", code="spec-invalid")
        for mount in spec.mounts:
            if mount.kind == "bind" and not (mount.source and mount.source.exists()):
                raise InvalidArgument(f"{mount.source} does not exist", code="mount-source-missing")
        if spec.process.user not in ("", "0", "0:0", "root") and not spec.process.user[0].isdigit():
            raise InvalidArgument(f"the image has no user {spec.process.user!r}", code="user-unknown")

    def _program(self, spec: ProcessSpec) -> Callable[[MemoryProcess], Awaitable[int | None]]:
        program = self._programs.get(spec.args[0])
        if program is None:
            raise FailedPrecondition(
                f"the image has no {spec.args[0]!r} to run",
                code="entrypoint-not-found",
                hint=f"there is: {', '.join(sorted(self._programs))}",
                exit_status=127,
            )
        return program

    async def start(self, id: SandboxId) -> None:
        self._fault("start")
        held = self._held(id)
        if not held.state.can_start():
            raise _wrong_state(id, held.state, "start")
        held.state = SandboxState.RUNNING
        held.task = asyncio.create_task(self._run(held.process), name=f"sandbox {id}")
        held.task.add_done_callback(lambda task: self._end(held, task))

    async def _run(self, process: MemoryProcess) -> ExitStatus:
        try:
            code = await self._program(process.spec)(process)
            return ExitStatus("exited", code or 0)
        except Exited as end:
            return end.status
        finally:
            process.close()

    def _end(self, held: _Held, task: asyncio.Task[ExitStatus]) -> None:
        held.state = SandboxState.STOPPED
        for process in held.execs.values():
            process.close()
        if not held.ended.done():
            status = task.result() if not task.cancelled() else ExitStatus("signaled", signal=signal.SIGKILL)
            held.ended.set_result(
                ExitStatus(status.cause, status.code, status.signal, self._clock.now(), held.process.usage)
            )

    async def wait(self, id: SandboxId) -> ExitStatus:
        return await asyncio.shield(self._held(id).ended)

    async def signal(self, id: SandboxId, signum: signal.Signals, *, everyone: bool = False) -> None:
        held = self._held(id)
        if not held.state.can_signal():
            return
        if held.task is None:
            if signum == signal.SIGKILL:
                held.state = SandboxState.STOPPED
                held.process.close()
                held.ended.set_result(ExitStatus("signaled", signal=signum, finished_at=self._clock.now()))
            return
        if not held.ended.done():
            held.ended.set_result(
                ExitStatus("signaled", signal=signum, finished_at=self._clock.now(), usage=held.process.usage)
            )
        held.task.cancel()
        await asyncio.wait([held.task])

    async def pause(self, id: SandboxId) -> None:
        self._fault("pause")
        held = self._held(id)
        if not held.state.can_pause():
            raise _wrong_state(id, held.state, "pause")
        held.state = SandboxState.PAUSED

    async def resume(self, id: SandboxId) -> None:
        self._fault("resume")
        held = self._held(id)
        if not held.state.can_resume():
            raise _wrong_state(id, held.state, "resume")
        held.state = SandboxState.RUNNING

    async def update(self, id: SandboxId, limits: Limits) -> None:
        self._fault("update")
        held = self._held(id)
        if not held.state.can_update():
            raise _wrong_state(id, held.state, "update")
        held.limits = limits

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        self._fault("exec")
        held = self._held(id)
        if not held.state.can_exec():
            raise _wrong_state(id, held.state, "exec")
        self._execs += 1
        exec_id = f"exec-{self._execs}"
        made = MemoryProcess(process, held.spec.hostname, None, self._clock)
        held.execs[exec_id] = made
        return Exec(exec_id, made.connect() if attach else None)

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        held = self._held(id)
        process = held.execs.pop(exec_id, None)
        if process is None:
            raise NotFound(f"no exec {exec_id} is waiting in {id}", code="exec-not-found")
        try:
            self._program(process.spec)
        except AosError:
            process.close()
            raise
        running = asyncio.create_task(self._run(process))
        try:
            await asyncio.wait({running, held.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = running.done()
            running.cancel()
            await asyncio.wait([running])
        if not ended:
            return ExitStatus("signaled", signal=signal.SIGKILL, finished_at=self._clock.now())
        return running.result()

    async def attach(self, id: SandboxId) -> Stdio:
        held = self._held(id)
        if held.state is SandboxState.STOPPED:
            raise _wrong_state(id, held.state, "attach")
        return held.process.connect()

    async def logs(self, id: SandboxId) -> Path:
        return self._held(id).log

    async def stats(self, id: SandboxId) -> Usage:
        return self._held(id).process.usage

    async def processes(self, id: SandboxId) -> list[ProcessInfo]:
        held = self._held(id)
        if held.state is SandboxState.STOPPED:
            raise _wrong_state(id, held.state, "look into")
        command = " ".join(held.spec.process.args)
        return [ProcessInfo(1, 0, "0", self._clock.now(), 0.0, 0, command)]

    async def root(self, id: SandboxId) -> int:
        _lacks("show the files of")

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        _lacks("checkpoint")

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        _lacks("restore")

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        self._fault("delete")
        held = self._world.get(id)
        if held is None:
            return
        if not force and not held.state.can_delete():
            raise _wrong_state(id, held.state, "delete")
        await self.signal(id, signal.SIGKILL)
        if not held.ended.done():
            held.ended.set_result(ExitStatus("lost", detail="deleted before it ran"))
        held.process.close()
        if held.spec.log is None:
            held.log.unlink(missing_ok=True)
        self._world.pop(id, None)

    async def list(self) -> list[Sandbox]:
        return [
            Sandbox(id, held.state, None, held.ended.result())
            if held.ended.done()
            else Sandbox(id, held.state, os.getpid())
            for id, held in self._world.items()
        ]

    def _held(self, id: SandboxId) -> _Held:
        try:
            return self._world[id]
        except KeyError:
            raise NotFound(f"no sandbox {id}", code="sandbox-not-found", sandbox=id) from None

    def _fault(self, call: str) -> None:
        if (error := self.faults.pop(call, None)) is not None:
            raise error


def _wrong_state(id: SandboxId, state: SandboxState, verb: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot {verb} sandbox {id}: it is {state.value}", code="sandbox-state", sandbox=id
    )


def _lacks(capability: str) -> Never:
    raise errors.NotImplemented(
        f"the memory backend cannot {capability} processes",
        code="capability-missing",
        hint="the gvisor backend will",
        backend="memory",
    )
