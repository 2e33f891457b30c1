"""The life of the memory backend's sandboxes."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Never

from aos import errors
from aos.errors import AlreadyExists, AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.runtime.backends.memory.process import Exited, MemoryProcess
from aos.runtime.checks import check_limits, check_mounts, check_process
from aos.runtime.protocol import Exec, RuntimeInfo
from aos.runtime.state import ExitStatus, ProcessInfo, Sandbox, SandboxState, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from signal import Signals

    from aos.clock import Clock
    from aos.ids import SandboxId
    from aos.runtime.protocol import Stdio
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec

__all__ = ["MemoryRuntime"]

_CAPABILITIES = frozenset(
    {
        *("attach", "exec", "limits", "logs", "pause", "prepare", "stats", "terminal", "top", "update"),
        *("pause-signals", "rename", "update-pids"),
    }
)
_ID_LIMIT = 2**32 - 1


@dataclass(slots=True)
class _Held:
    spec: AgentSpec
    log: Path
    process: MemoryProcess
    state: SandboxState = SandboxState.CREATED
    limits: Limits | None = None
    ended: asyncio.Future[ExitStatus] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    execs: dict[str, MemoryProcess] = field(default_factory=dict)
    """That wait for their start."""
    running: dict[MemoryProcess, asyncio.Task[ExitStatus]] = field(default_factory=dict)
    """Its processes."""
    going: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while it is not paused."""
    held_back: list[tuple[Signals, bool]] = field(default_factory=list)
    """Signals that came while it was."""

    @property
    def task(self) -> asyncio.Task[ExitStatus] | None:
        """Of the entrypoint, while it runs."""
        return self.running.get(self.process)


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
        return RuntimeInfo(
            "memory", "1", _CAPABILITIES, {"programs": ", ".join(sorted(self._programs))}, "none"
        )

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        self._fault("create")
        if id in self._world:
            raise AlreadyExists(f"sandbox {id} exists", code="sandbox-exists", sandbox=id)
        self._check(spec)
        self._program(spec.process)
        log = spec.log or self._logs / f"{id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        going = asyncio.Event()
        going.set()
        process = MemoryProcess(
            spec.process, spec.hostname, log, self._clock, going, leave_stdin_open=spec.leave_stdin_open
        )
        self._world[id] = _Held(spec, log, process, limits=spec.limits, going=going)
        return Sandbox(id, SandboxState.CREATED, os.getpid())

    def _check(self, spec: AgentSpec) -> None:
        check_process(spec.process)
        check_limits(spec.limits)
        check_mounts(spec.mounts)
        _check_user(spec.process.user)

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
        self._let_go(held, held.process).add_done_callback(lambda task: self._end(held, task))

    def _let_go(self, held: _Held, process: MemoryProcess) -> asyncio.Task[ExitStatus]:
        task = asyncio.create_task(self._run(held, process), name=" ".join(process.spec.args))
        held.running[process] = task
        task.add_done_callback(lambda _: self._let_end(held, process))
        return task

    def _let_end(self, held: _Held, process: MemoryProcess) -> None:
        """Also of one that was cancelled before its first step."""
        held.running.pop(process, None)
        process.close()

    async def _run(self, held: _Held, process: MemoryProcess) -> ExitStatus:
        try:
            await held.going.wait()
            code = await self._program(process.spec)(process)
            return ExitStatus("exited", code or 0)
        except Exited as end:
            return end.status

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
        if held.state is SandboxState.CREATED:
            if signum == signal.SIGKILL:
                held.state = SandboxState.STOPPED
                held.process.close()
                held.ended.set_result(ExitStatus("signaled", signal=signum, finished_at=self._clock.now()))
        elif held.state is SandboxState.PAUSED and signum != signal.SIGKILL:
            held.held_back.append((signum, everyone))
        else:
            await self._deliver(held, signum, everyone)

    async def _deliver(self, held: _Held, signum: Signals, everyone: bool) -> None:
        ended = []
        for process, task in [*held.running.items()]:
            if (process is not held.process and not everyone) or process.handles(signum):
                continue
            if process is held.process and not held.ended.done():
                held.ended.set_result(
                    ExitStatus("signaled", signal=signum, finished_at=self._clock.now(), usage=process.usage)
                )
            process.ended_by = signum
            task.cancel()
            ended.append(task)
        if ended:
            await asyncio.wait(ended)

    async def pause(self, id: SandboxId) -> None:
        self._fault("pause")
        held = self._held(id)
        if not held.state.can_pause():
            raise _wrong_state(id, held.state, "pause")
        held.state = SandboxState.PAUSED
        held.going.clear()

    async def resume(self, id: SandboxId) -> None:
        self._fault("resume")
        held = self._held(id)
        if not held.state.can_resume():
            raise _wrong_state(id, held.state, "resume")
        held.state = SandboxState.RUNNING
        held.going.set()
        while held.held_back:
            await self._deliver(held, *held.held_back.pop(0))

    async def update(self, id: SandboxId, limits: Limits) -> None:
        self._fault("update")
        held = self._held(id)
        if not held.state.can_update():
            raise _wrong_state(id, held.state, "update")
        check_limits(limits)
        held.limits = limits

    async def rename(self, id: SandboxId, hostname: str) -> None:
        self._fault("rename")
        held = self._held(id)
        if not held.state.can_start():
            raise _wrong_state(id, held.state, "rename")
        held.spec = replace(held.spec, hostname=hostname)
        held.process.hostname = hostname

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        self._fault("exec")
        held = self._held(id)
        if not held.state.can_exec():
            raise _wrong_state(id, held.state, "exec")
        check_process(process)
        _check_user(process.user)
        self._execs += 1
        exec_id = f"exec-{self._execs}"
        made = MemoryProcess(process, held.spec.hostname, None, self._clock, held.going)
        held.execs[exec_id] = made
        return Exec(exec_id, made.connect() if attach else None)

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        held = self._held(id)
        process = held.execs.get(exec_id)
        if process is not None and not held.state.can_exec():
            raise _wrong_state(id, held.state, "start an exec in")
        process = held.execs.pop(exec_id, None)
        if process is None:
            raise NotFound(f"no exec {exec_id} is waiting in {id}", code="exec-not-found")
        try:
            self._program(process.spec)
        except AosError:
            process.close()
            raise
        running = self._let_go(held, process)
        try:
            await asyncio.wait({running, held.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = running.done()
            running.cancel()
            await asyncio.wait([running])
        if not ended or running.cancelled():
            return ExitStatus("signaled", signal=process.ended_by, finished_at=self._clock.now())
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
        return [ProcessInfo(1, 0, "0", command, self._clock.now(), 0.0, 0)]

    async def root(self, id: SandboxId) -> int:
        _lacks("show the files of")

    async def connect(self, id: SandboxId, port: int) -> int:
        _lacks("connect to ports of")

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


def _check_user(user: str) -> None:
    """There are no files that could know another name."""
    for name in user.split(":") if user else ():
        number = int(name) if name.isascii() and name.isdecimal() else None
        if name != "root" and (number is None or number >= _ID_LIMIT):
            raise InvalidArgument(
                f"the image has no user or group {name!r}",
                code="user-unknown",
                hint="it knows: root",
                user=user,
            )


def _wrong_state(id: SandboxId, state: SandboxState, verb: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot {verb} sandbox {id}: it is {state.value}", code="sandbox-state", sandbox=id
    )


def _lacks(capability: str) -> Never:
    raise errors.NotImplemented(
        f"the memory backend cannot {capability} a sandbox",
        code="capability-missing",
        hint="a backend that isolates can: oci or gvisor",
        backend="memory",
    )
