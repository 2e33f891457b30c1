"""Node: the kernel's decisions become durable, then happen; what happens becomes the kernel's next command."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from aos.errors import AosError, NotFound
from aos.ids import SandboxId
from aos.kernel.process.effects import Discard, Erase, Launch, Signal, Terminate, Wake
from aos.kernel.process.machine import Machine, not_running
from aos.kernel.process.records import AgentState, ExitRecord, ProcessState
from aos.node.failpoints import failpoint
from aos.node.log_tail import read_tail
from aos.runtime.state import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from aos.clock import Clock
    from aos.ids import IdSource
    from aos.kernel.journal import Journal
    from aos.kernel.process.effects import Effect
    from aos.kernel.process.machine import Decision
    from aos.kernel.process.records import Agent, Process, Program
    from aos.runtime.facade import RuntimeFacade
    from aos.runtime.protocol import Stdio
    from aos.runtime.spec import AgentSpec

__all__ = ["Node", "Programs"]

log = logging.getLogger("aosd")

_RETRY_SECONDS = 1.0
_CLEANING_SECONDS = 5.0
"""How long a stop waits for the sandboxes of removed agents; what is left then, the next start deletes."""


class Programs(Protocol):
    """From what an agent runs to the specification of its sandbox."""

    async def spec(self, program: Program, hostname: str) -> AgentSpec: ...


class Node:
    """Runs inside `async with`: tasks of its effects live and end with it, agents do not."""

    def __init__(
        self,
        *,
        runtime: RuntimeFacade,
        journal: Journal,
        programs: Programs,
        logs: Path,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """`logs`: the directory of the agents' logs."""
        self.runtime = runtime
        self.journal = journal
        self.programs = programs
        self._logs = logs
        self.clock = clock
        self.ids = ids
        self.machine = Machine(journal.load())
        self.changed = asyncio.Condition()
        """Notified after every commit."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._cleaning: set[asyncio.Task[None]] = set()
        """Of those tasks: what an agent that is gone still waits for."""
        self._finished: dict[str, asyncio.Future[ExitRecord]] = {}
        self._ready: dict[int, asyncio.Event] = {}
        """Of processes that are being launched: set when they run, or have failed to."""

    async def __aenter__(self) -> Node:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=_CLEANING_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Deciding.

    async def commit(self, decision: Decision) -> None:
        """Make the events durable, then perform the effects. When that fails, nothing of the decision holds."""
        if decision.events:
            failpoint("before-journal")
            try:
                await self.journal.append(decision.events)
            except AosError:
                self.machine.state = self.journal.load()
                raise
            failpoint("after-journal")
        for effect in decision.effects:
            task = self._start(self._perform(effect), type(effect).__name__)
            if isinstance(effect, Discard):
                self._cleaning.add(task)
                task.add_done_callback(self._cleaning.discard)
        if decision.events:
            self._answer_waiters()
            async with self.changed:
                self.changed.notify_all()

    async def run(
        self,
        program: Program,
        *,
        name: str,
        restart: str,
        remove: bool,
        hostname: str,
        attach: bool,
        size: tuple[int, int] | None,
    ) -> tuple[Agent, Process, Stdio | None]:
        """Create an agent and launch its first process; its streams are connected before it runs."""
        id = self.ids.fresh()
        now = self.clock.now()
        decision = self.machine.run(id, name or _made_up(id), program, restart=restart, remove=remove, at=now)
        agent = self.machine.state.agents[id]
        process = self.machine.state.processes[agent.pid]
        decision.effects.clear()  # the launch is done here, for its streams and its errors are the caller's
        self._ready[process.pid] = asyncio.Event()
        try:
            await self.commit(decision)
            stdio = await self._launch(process, program, hostname or agent.name, attach=attach, size=size)
        except BaseException:
            gone = self._insist(lambda: self.machine.abandon(id, at=self.clock.now()))
            self._start(gone, f"abandon {id}")
            raise
        finally:
            self._ready.pop(process.pid).set()
        return agent, process, stdio

    async def _launch(
        self,
        process: Process,
        program: Program,
        hostname: str,
        *,
        attach: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Stdio | None:
        spec = replace(await self.programs.spec(program, hostname), log=self.log_of(process.agent))
        sandbox = SandboxId(process.sandbox)
        await self.runtime.create(sandbox, spec)
        failpoint("after-create")
        stdio = await self.runtime.attach(sandbox) if attach else None
        try:
            if size is not None and stdio is not None and stdio.control is not None:
                os.write(stdio.control, b"1 %d %d\n" % size)
            await self.runtime.start(sandbox)
            failpoint("after-start")
            await self.commit(self.machine.launched(process.pid, at=self.clock.now()))
        except BaseException:
            if stdio is not None:
                close_stdio(stdio)
            await asyncio.shield(self.runtime.delete(sandbox, force=True))
            raise
        self._start(self._watch(process.pid, sandbox), f"watch {sandbox}")
        return stdio

    # Performing.

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Launch(pid):
                await self._relaunch(pid)
            case Signal(pid, name):
                await self._signal(pid, name)
            case Terminate(pid, grace):
                await self._terminate(pid, grace)
            case Wake(agent, at):
                await asyncio.sleep(max(0.0, at - self.clock.now()))
                await self._insist(lambda: self.machine.due(agent, at=self.clock.now()))
            case Discard(sandbox):
                await self._discard(SandboxId(sandbox))
            case Erase(agent):
                self.log_of(agent).unlink(missing_ok=True)

    async def _relaunch(self, pid: int) -> None:
        """A supervised start: there is no caller to tell, so a failure is how the process ended."""
        process = self.machine.state.processes.get(pid)
        if process is None or process.state is not ProcessState.SPAWNING:
            return
        agent = self.machine.state.agents[process.agent]
        self._ready[pid] = asyncio.Event()
        try:
            await self.runtime.delete(SandboxId(process.sandbox), force=True)  # of an attempt before a crash
            hostname = str(agent.program.overrides.get("hostname") or agent.name)
            await self._launch(process, agent.program, hostname)
        except AosError as error:
            log.warning("agent %s: process %d could not be started: %s", agent.id, pid, error)
            status = ExitStatus(
                "exited",
                int(str(error.subject.get("exit_status", 125))),
                finished_at=self.clock.now(),
                detail=f"could not be started: {error.message}",
            )
            await self._ended(pid, status)
        finally:
            self._ready.pop(pid).set()

    async def _watch(self, pid: int, sandbox: SandboxId) -> None:
        status = await self.runtime.wait(sandbox)
        failpoint("after-exit")
        await self._ended(pid, status)

    async def _ended(self, pid: int, status: ExitStatus) -> None:
        process = self.machine.state.processes.get(pid)
        if process is None:
            return
        usage = status.usage
        record = ExitRecord(
            pid=pid,
            cause=status.cause,
            code=status.code,
            signal=status.signal,
            shell_code=status.shell_code,
            started_at=process.started_at,
            finished_at=status.finished_at,
            usage={
                name: value
                for name in ("cpu_seconds", "memory_peak_bytes", "read_bytes", "written_bytes")
                if (value := getattr(usage, name)) is not None
            },
            tail=read_tail(self.log_of(process.agent), process.spawned_at),
            detail=status.detail,
        )
        await self._insist(lambda: self.machine.exited(pid, record, at=self.clock.now()))

    async def _signal(self, pid: int, name: str) -> None:
        process = self.machine.state.processes.get(pid)
        if process is not None:
            try:
                await self.runtime.signal(SandboxId(process.sandbox), signal.Signals[f"SIG{name}"])
            except AosError as error:
                log.warning("signal %s to process %d: %s", name, pid, error)

    async def _terminate(self, pid: int, grace: float) -> None:
        if (ready := self._ready.get(pid)) is not None:
            await ready.wait()
        process = self.machine.state.processes.get(pid)
        if process is None or process.state is ProcessState.EXITED:
            return
        sandbox = SandboxId(process.sandbox)
        agent = self.machine.state.agents[process.agent]
        if grace > 0:
            await self._signal(pid, agent.program.stop_signal)
            try:
                async with asyncio.timeout(grace):
                    await self.runtime.wait(sandbox)
            except (TimeoutError, NotFound):
                pass
        # Whatever is left goes at once; a process that forks meanwhile is met again.
        for _ in range(20):
            try:
                await self.runtime.signal(sandbox, signal.SIGKILL)
                await self.runtime.signal(sandbox, signal.SIGKILL, everyone=True)
                async with asyncio.timeout(1):
                    await self.runtime.wait(sandbox)
            except NotFound:
                return
            except TimeoutError:
                continue
            return

    async def _discard(self, sandbox: SandboxId) -> None:
        while True:
            try:
                await self.runtime.delete(sandbox, force=True)
            except AosError as error:
                log.warning("sandbox %s cannot be deleted yet: %s", sandbox, error)
                await asyncio.sleep(_RETRY_SECONDS * 5)
            else:
                return

    async def _insist(self, decide: Any) -> None:
        """For what has happened already: try until the journal has it."""
        while True:
            try:
                await self.commit(decide())
            except AosError as error:
                log.error("cannot record what happened, will try again: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    # Waiting.

    async def wait(self, text: str) -> ExitRecord:
        """The exit record of an agent's last process, once no restart is pending."""
        try:
            agent = self.machine.find(text)
        except NotFound:
            await self.journal.append([])  # its removal may be on the way to the disk
            if (record := self.journal.last_exit(text)) is None:
                raise
            return record
        if (record := self._final(agent)) is not None:
            return record
        future = self._finished.setdefault(agent.id, asyncio.get_running_loop().create_future())
        return await asyncio.shield(future)

    async def gone(self, id: str) -> None:
        """Once an agent that is to be removed has been."""
        async with self.changed:
            await self.changed.wait_for(lambda: id not in self.machine.state.agents)

    def _final(self, agent: Agent) -> ExitRecord | None:
        return self.machine.state.processes[agent.pid].exit if agent.state is AgentState.EXITED else None

    def _answer_waiters(self) -> None:
        for id in list(self._finished):
            agent = self.machine.state.agents.get(id)
            record = self._final(agent) if agent is not None else self.journal.last_exit(id)
            if record is not None:
                self._finished.pop(id).set_result(record)
            elif agent is None:
                gone = NotFound(f"agent {id} was removed before it ran", code="agent-not-found", agent=id)
                self._finished.pop(id).set_exception(gone)

    def log_of(self, agent: str) -> Path:
        """Where everything is that the agent's processes have written, one after the other."""
        return self._logs / f"{agent}.log"

    def running(self, text: str) -> tuple[Agent, Process]:
        """An agent whose process runs. FailedPrecondition `agent-not-running` otherwise."""
        agent = self.machine.find(text)
        process = self.machine.state.processes[agent.pid]
        if process.state is not ProcessState.RUNNING:
            raise not_running(agent)
        return agent, process

    # After a restart of the daemon.

    async def adopt(self) -> None:
        """Bring what the journal says and what is there together; see docs/kernel.md, "After a crash"."""
        there = {sandbox.id: sandbox for sandbox in await self.runtime.list()}
        for process in list(self.machine.state.processes.values()):
            id = SandboxId(process.sandbox)
            found = there.pop(id, None)
            if process.state is ProcessState.EXITED:
                continue
            await self._adopt_process(process, found)
        for id in there:
            if _is_ours(id):
                log.info("sandbox %s belongs to no agent: deleting it", id)
                self._start(self._discard(id), f"discard {id}")
        for path in self._logs.iterdir():
            if path.stem not in self.machine.state.agents:
                path.unlink()
        for agent in list(self.machine.state.agents.values()):
            process = self.machine.state.processes[agent.pid]
            if agent.state is AgentState.RESTARTING and agent.restart_at is not None:
                self._start(self._perform(Wake(agent.id, agent.restart_at)), f"wake {agent.id}")
            elif agent.state is AgentState.STOPPING and process.state is not ProcessState.EXITED:
                grace = max(0.0, (agent.kill_at or 0.0) - self.clock.now())
                self._start(self._perform(Terminate(agent.pid, grace)), f"terminate {agent.id}")

    async def _adopt_process(self, process: Process, found: Any) -> None:
        from aos.runtime.state import SandboxState

        id = SandboxId(process.sandbox)
        state = found.state if found is not None else None
        if state in (SandboxState.RUNNING, SandboxState.PAUSED, SandboxState.STOPPED):
            await self.commit(self.machine.launched(process.pid, at=self.clock.now()))
            self._start(self._watch(process.pid, id), f"watch {id}")
            return
        if process.state is ProcessState.SPAWNING and self.machine.state.agents[process.agent].restarts:
            self._start(self._relaunch(process.pid), f"relaunch {id}")
            return
        detail = (
            "it never started: the node ended while its sandbox was being made"
            if process.state is ProcessState.SPAWNING
            else "its sandbox is gone"
        )
        if found is not None:
            await self.runtime.delete(id, force=True)
        await self._ended(process.pid, ExitStatus("lost", finished_at=None, detail=detail))

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task of ours; what it did not expect is a defect that is logged, and ends nothing else."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)


def close_stdio(stdio: Stdio) -> None:
    os.close(stdio.socket)
    if stdio.control is not None:
        os.close(stdio.control)


def _is_ours(id: SandboxId) -> bool:
    """Made for an agent; build steps have sandboxes on this backend, too, and are none of the node's."""
    agent, _, pid = id.rpartition("-")
    return len(agent) == 12 and pid.isdecimal()


_ADJECTIVES = [
    "amber",
    "brisk",
    "calm",
    "deft",
    "eager",
    "fair",
    "glad",
    "keen",
    "lucid",
    "mild",
    "neat",
    "proud",
    "quick",
    "sage",
    "tidy",
    "vivid",
]
_NOUNS = [
    "ant",
    "bee",
    "crane",
    "dove",
    "eel",
    "fox",
    "gull",
    "hare",
    "ibis",
    "jay",
    "kite",
    "lark",
    "mole",
    "newt",
    "owl",
    "seal",
]


def _made_up(id: str) -> str:
    """A name somebody can say; the end of the id makes it this agent's."""
    number = int(id[:4], 16)
    return f"{_ADJECTIVES[number % 16]}-{_NOUNS[number // 16 % 16]}-{id[-4:]}"
