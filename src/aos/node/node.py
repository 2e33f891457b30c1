"""Node: the kernel's decisions become durable, then happen; what happens becomes the kernel's next command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from aos.errors import AosError, NotFound
from aos.ids import SandboxId
from aos.kernel.process.effects import Discard, Erase, Freeze, Launch, Signal, Terminate, Thaw, Wake
from aos.kernel.process.machine import Machine, not_running
from aos.kernel.process.records import AgentState, ExitRecord, ProcessState
from aos.node.failpoints import failpoint
from aos.node.hooks import Hooks, Moment
from aos.node.log_tail import read_tail
from aos.node.names import made_up
from aos.node.probes import Probes
from aos.runtime.state import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from aos.clock import Clock
    from aos.ids import IdSource
    from aos.kernel.journal import Journal
    from aos.kernel.process.effects import Effect
    from aos.kernel.process.machine import Decision
    from aos.kernel.process.records import Agent, Process, Program
    from aos.kernel.process.restart import RestartLimit
    from aos.runtime.facade import RuntimeFacade
    from aos.runtime.protocol import Stdio
    from aos.runtime.spec import AgentSpec

__all__ = ["Node", "Programs"]

log = logging.getLogger("aosd")

_PREPARING = ("post_create", "pre_start")
"""Hooks that run in a sandbox before its entrypoint does."""
_RETRY_SECONDS = 1.0
_CLEANING_SECONDS = 5.0
"""How long a stop waits for the sandboxes of removed agents; what is left then, the next start deletes."""


class Programs(Protocol):
    """From what an agent runs to the specification of its sandbox."""

    async def spec(self, program: Program, hostname: str) -> AgentSpec: ...

    def secret_values(self, program: Program) -> list[bytes]:
        """What must not be shown of what it writes."""
        ...

    def forget(self, program: Program) -> None:
        """The agent that had this program is gone."""
        ...


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
        boot: str = "",
        allow_host_hooks: bool = False,
    ) -> None:
        """`logs`: the directory of the agents' logs; `boot`: the host's boot id."""
        self.runtime = runtime
        self.journal = journal
        self.programs = programs
        self._logs = logs
        self.clock = clock
        self.ids = ids
        self.boot = boot
        self.machine = Machine(journal.load())
        self.hooks = Hooks(runtime, clock, allow_host=allow_host_hooks)
        self.probes = Probes(runtime, lambda: self.machine, self._spec, clock, self.insist)
        self.changed = asyncio.Condition()
        """Notified after every commit."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._cleaning: set[asyncio.Task[None]] = set()
        """Of those tasks: what an agent that is gone still waits for."""
        self._finished: dict[str, asyncio.Future[ExitRecord]] = {}
        self._ready: dict[int, asyncio.Event] = {}
        """Of processes that are being launched: set when they run, or have failed to."""
        self._draining: set[int] = set()
        """Processes whose `preStop` hooks have begun: they run once."""

    async def __aenter__(self) -> Node:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=_CLEANING_SECONDS)
        await self.probes.end()
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
            task = self.start(self.perform(effect), type(effect).__name__)
            if isinstance(effect, Discard | Erase):
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
        attach: bool,
        size: tuple[int, int] | None,
        replicas: int = 1,
        limit: RestartLimit | None = None,
    ) -> tuple[Agent, Process, Stdio | None]:
        """Create an agent and launch the first process of each replica; the streams of the first replica's are
        connected before it runs. When one cannot be made there is no agent."""
        id = self.ids.fresh()
        decision = self.machine.run(
            id,
            name or made_up(id),
            program,
            restart=restart,
            remove=remove,
            at=self.clock.now(),
            replicas=replicas,
            limit=limit,
        )
        agent = self.machine.state.agents[id]
        processes = [self.machine.state.processes[pid] for pid in agent.pids]
        decision.effects.clear()  # the launch is done here, for its streams and its errors are the caller's
        for process in processes:
            self._ready[process.pid] = asyncio.Event()
        first, *others = processes
        try:
            await self.commit(decision)
            made = await asyncio.gather(
                self._launch(first, agent, attach=attach, size=size),
                *(self._launch(process, agent) for process in others),
                return_exceptions=True,
            )
            if error := next((one for one in made if isinstance(one, BaseException)), None):
                raise error
        except BaseException:
            gone = self.insist(lambda: self.machine.abandon(id, at=self.clock.now()))
            self.start(gone, f"abandon {id}")
            raise
        finally:
            for process in processes:
                self._ready.pop(process.pid).set()
        stdio = made[0]
        assert not isinstance(stdio, BaseException)
        return agent, first, stdio

    async def _launch(
        self, process: Process, agent: Agent, *, attach: bool = False, size: tuple[int, int] | None = None
    ) -> Stdio | None:
        spec = await self._spec(agent, process.replica)
        if spec.network.mode == "agent":  # by name so far
            other = self.running(spec.network.sandbox)[1]
            spec = replace(spec, network=replace(spec.network, sandbox=other.sandbox))
        sandbox = SandboxId(process.sandbox)
        await self.hooks.run("pre_create", self._moment(agent, process))
        made = await self.runtime.create(sandbox, spec)
        stdio = None
        try:
            failpoint("after-create")
            moment = self._moment(agent, process, spec)
            await self.hooks.run("post_create", moment)
            stdio = await self.runtime.attach(sandbox) if attach else None
            if size is not None and stdio is not None and stdio.control is not None:
                os.write(stdio.control, b"1 %d %d\n" % size)
            await self.hooks.run("pre_start", moment)
            await self.runtime.start(sandbox)
            failpoint("after-start")
            await self.commit(self.machine.launched(process.pid, at=self.clock.now()))
        except BaseException:
            if stdio is not None:
                close_stdio(stdio)
            await asyncio.shield(self.runtime.delete(sandbox, force=True))
            raise
        self.watch(process.pid, made.pid)
        if "post_start" in agent.program.hooks:
            self.start(self._after_start(process.pid, moment), f"postStart of {sandbox}")
        return stdio

    async def _after_start(self, pid: int, moment: Moment) -> None:
        try:
            await self.hooks.run("post_start", moment)
        except AosError as error:
            why = error.message
            await self.insist(lambda: self.machine.condemn(pid, "policy", why, at=self.clock.now()))

    async def _spec(self, agent: Agent, replica: int = 0) -> AgentSpec:
        """Of the sandbox of one of its processes."""
        program, host = agent.program, agent.name
        if len(agent.replicas) > 1:
            host = f"{agent.name}-{replica + 1}"
        spec = await self.programs.spec(program, host)
        if any(hook.where == "sandbox" for event in _PREPARING for hook in program.hooks.get(event, ())):
            spec = replace(spec, needs=spec.needs | {"prepare"})
        if len(agent.replicas) > 1:
            env = (*spec.process.env, ("AOS_REPLICA", str(replica + 1)))
            spec = replace(spec, process=replace(spec.process, env=env))
        return replace(spec, log=self.log_of(agent.id, replica))

    def _moment(self, agent: Agent, process: Process, spec: AgentSpec | None = None) -> Moment:
        return Moment(
            agent.id,
            agent.name,
            agent.program,
            self.log_of(agent.id, process.replica),
            sandbox=process.sandbox,
            process=None if spec is None else spec.process,
        )

    def watch(self, pid: int, host_pid: int | None) -> None:
        """A process runs: wait for its end, and ask for its health meanwhile."""
        process = self.machine.state.processes.get(pid)
        if process is not None:
            self.start(self._watch(pid, SandboxId(process.sandbox)), f"watch {process.sandbox}")
            if process.lives:
                self.probes.watch(pid, host_pid)

    # Changing what runs; a refusal of the runtime is the caller's to know, and then nothing has changed.

    async def pause(self, id: str) -> None:
        await self._or_undo(
            self.machine.pause(id, at=self.clock.now()),
            lambda: self.machine.unpause(id, at=self.clock.now()),
        )

    async def unpause(self, id: str) -> None:
        await self._or_undo(
            self.machine.unpause(id, at=self.clock.now()),
            lambda: self.machine.pause(id, at=self.clock.now()),
        )

    async def _or_undo(self, decision: Decision, undo: Callable[[], Decision]) -> None:
        effects, decision.effects = decision.effects, []
        await self.commit(decision)
        try:
            for effect in effects:
                await self._freeze(effect.pid, isinstance(effect, Freeze))  # type: ignore[union-attr]
        except AosError:
            with contextlib.suppress(AosError):
                await self.commit(undo())  # its effects bring back those that were done
            raise

    async def update(self, id: str, *, limits: dict[str, Any] | None, restart: str | None) -> None:
        before = self.machine.state.agents[id].program.overrides.get("limits") or {}
        after = None if limits is None else {**before, **limits}
        await self.commit(self.machine.update(id, limits=after, restart=restart, at=self.clock.now()))
        agent = self.machine.state.agents[id]
        if after is None:
            return
        spec = await self._spec(agent)
        try:
            for pid in agent.pids:
                process = self.machine.state.processes[pid]
                if process.state is ProcessState.RUNNING:
                    await self.runtime.update(SandboxId(process.sandbox), spec.limits)
        except AosError:
            await self.insist(lambda: self.machine.update(id, limits=before, at=self.clock.now()))
            raise

    # Performing.

    async def perform(self, effect: Effect) -> None:
        match effect:
            case Launch(pid):
                await self._relaunch(pid)
            case Signal(pid, name):
                await self._signal(pid, name)
            case Terminate(pid, grace):
                await self._terminate(pid, grace)
            case Freeze(pid) | Thaw(pid):
                try:
                    await self._freeze(pid, isinstance(effect, Freeze))
                except AosError as error:
                    log.warning("process %d: %s", pid, error)
            case Wake(agent, at, replica):
                await asyncio.sleep(max(0.0, at - self.clock.now()))
                await self.insist(lambda: self.machine.due(agent, replica, at=self.clock.now()))
            case Discard(sandbox):
                await self.discard(SandboxId(sandbox))
            case Erase():
                await self._erase(effect)

    async def _relaunch(self, pid: int) -> None:
        """A supervised start: there is no caller to tell, so a failure is how the process ended."""
        process = self.machine.state.processes.get(pid)
        if process is None or process.state is not ProcessState.SPAWNING:
            return
        agent = self.machine.state.agents[process.agent]
        self._ready[pid] = asyncio.Event()
        try:
            await self.runtime.delete(SandboxId(process.sandbox), force=True)  # of an attempt before a crash
            await self._launch(process, agent)
        except AosError as error:
            log.warning("agent %s: process %d could not be started: %s", agent.id, pid, error)
            status = ExitStatus(
                "exited",
                int(str(error.subject.get("exit_status", 125))),
                finished_at=self.clock.now(),
                detail=f"could not be started: {error.message}",
            )
            await self.ended(pid, status)
        finally:
            self._ready.pop(pid).set()

    async def _freeze(self, pid: int, freeze: bool) -> None:
        process = self.machine.state.processes.get(pid)
        if process is None:
            return
        sandbox = SandboxId(process.sandbox)
        try:
            await (self.runtime.pause(sandbox) if freeze else self.runtime.resume(sandbox))
        except AosError as error:
            # Already so, or it has ended under our hands: its end is on the way.
            if error.code not in ("sandbox-state", "sandbox-not-found"):
                raise

    async def _watch(self, pid: int, sandbox: SandboxId) -> None:
        status = await self.runtime.wait(sandbox)
        failpoint("after-exit")
        await self.ended(pid, status)

    async def ended(self, pid: int, status: ExitStatus) -> None:
        self.probes.forget(pid)
        self._draining.discard(pid)
        process = self.machine.state.processes.get(pid)
        if process is None:
            return
        agent = self.machine.state.agents[process.agent]
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
            tail=read_tail(
                self.log_of(process.agent, process.replica),
                process.spawned_at,
                self.programs.secret_values(agent.program),
            ),
            detail=status.detail,
        )
        await self.insist(lambda: self.machine.exited(pid, record, at=self.clock.now()))
        if process.lives and "post_stop" in agent.program.hooks:
            with contextlib.suppress(AosError):  # it is in the log
                await self.hooks.run("post_stop", self._moment(agent, process))

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
            with contextlib.suppress(TimeoutError, NotFound):
                async with asyncio.timeout(grace):
                    await self._drain(process, agent)
                    await self._signal(pid, agent.program.stop_signal)
                    await self._freeze(pid, False)  # what is paused would not take the signal
                    await self.runtime.wait(sandbox)
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

    async def _drain(self, process: Process, agent: Agent) -> None:
        """Its `preStop` hooks, within its time to finish."""
        if "pre_stop" in agent.program.hooks and process.pid not in self._draining:
            self._draining.add(process.pid)
            await self._freeze(process.pid, False)
            with contextlib.suppress(AosError):  # it is in the log
                spec = await self._spec(agent, process.replica)
                await self.hooks.run("pre_stop", self._moment(agent, process, spec))

    async def _erase(self, effect: Erase) -> None:
        """All that is left of an agent that is not there any more."""
        moment = Moment(effect.agent, effect.name, effect.program, self.log_of(effect.agent))
        with contextlib.suppress(AosError):
            await self.hooks.run("pre_delete", moment)
        await asyncio.gather(*(self.discard(SandboxId(sandbox)) for sandbox in effect.sandboxes))
        for replica in range(len(effect.sandboxes)):
            self.log_of(effect.agent, replica).unlink(missing_ok=True)
        self.programs.forget(effect.program)
        with contextlib.suppress(AosError):
            await self.hooks.run("post_delete", moment)

    async def discard(self, sandbox: SandboxId) -> None:
        while True:
            try:
                await self.runtime.delete(sandbox, force=True)
            except AosError as error:
                log.warning("sandbox %s cannot be deleted yet: %s", sandbox, error)
                await asyncio.sleep(_RETRY_SECONDS * 5)
            else:
                return

    async def insist(self, decide: Any) -> None:
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
        """Of the first replica that failed, or of the first."""
        if agent.state is not AgentState.EXITED:
            return None
        exits = [self.machine.state.processes[pid].exit for pid in agent.pids]
        return next((exit for exit in exits if exit is not None and exit.failed), exits[0])

    def _answer_waiters(self) -> None:
        for id in list(self._finished):
            agent = self.machine.state.agents.get(id)
            record = self._final(agent) if agent is not None else self.journal.last_exit(id)
            if record is not None:
                self._finished.pop(id).set_result(record)
            elif agent is None:
                gone = NotFound(f"agent {id} was removed before it ran", code="agent-not-found", agent=id)
                self._finished.pop(id).set_exception(gone)

    def log_of(self, agent: str, replica: int = 0) -> Path:
        """Where everything is that the processes of a replica have written, one after the other."""
        return self._logs / (f"{agent}.{replica}.log" if replica else f"{agent}.log")

    def logs(self) -> list[Path]:
        return list(self._logs.iterdir())

    def running(self, text: str, replica: int | None = None) -> tuple[Agent, Process]:
        """An agent and a process of it that runs: the first, or that of a replica (from 0). FailedPrecondition
        `agent-not-running` when none does or it is paused, NotFound `replica-not-found`."""
        agent = self.machine.find(text)
        if replica is not None and not 0 <= replica < len(agent.replicas):
            raise no_replica(agent, replica)
        pids = agent.pids if replica is None else (agent.replicas[replica].pid,)
        for pid in pids if agent.state is not AgentState.PAUSED else ():
            process = self.machine.state.processes[pid]
            if process.state is ProcessState.RUNNING:
                return agent, process
        raise not_running(agent)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
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


def no_replica(agent: Agent, replica: int) -> NotFound:
    count = len(agent.replicas)
    return NotFound(
        f"agent {agent.name} has no replica {replica + 1}",
        code="replica-not-found",
        hint="it has one" if count == 1 else f"they are numbered from 1 to {count}",
        agent=agent.id,
    )
