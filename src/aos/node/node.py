"""Node: the kernel's decisions become durable, then happen; what happens becomes the kernel's next command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from aos.errors import AosError, NotFound
from aos.ids import SandboxId
from aos.kernel.process.effects import Discard, Erase, Freeze
from aos.kernel.process.machine import Machine, not_running
from aos.kernel.process.records import AgentState, ExitRecord, ProcessState
from aos.node.failpoints import failpoint
from aos.node.names import made_up
from aos.node.probes import Probes
from aos.node.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from aos.clock import Clock
    from aos.ids import IdSource
    from aos.kernel.journal import Journal
    from aos.kernel.process.machine import Decision
    from aos.kernel.process.records import Agent, Process, Program
    from aos.kernel.process.restart import RestartLimit
    from aos.node.processes import Pooled, Programs
    from aos.runtime.facade import RuntimeFacade
    from aos.runtime.protocol import Stdio

__all__ = ["Node", "no_replica"]

log = logging.getLogger("aosd")

_PREPARING = ("post_create", "pre_start")
"""Hooks that run in a sandbox before its entrypoint does."""
_RETRY_SECONDS = 1.0
_CLEANING_SECONDS = 5.0
"""How long a stop waits for the sandboxes of removed agents; what is left then, the next start deletes."""


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
        self.clock = clock
        self.ids = ids
        self.boot = boot
        self.machine = Machine(journal.load())
        self.processes = Processes(self, programs, logs, allow_host_hooks=allow_host_hooks)
        self.probes = Probes(runtime, lambda: self.machine, self.processes.spec, clock, self.insist)
        self.changed = asyncio.Condition()
        """Notified after every commit."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._cleaning: set[asyncio.Task[None]] = set()
        """Of those tasks: the end of sandboxes that are nobody's any more."""
        self._undurable: Counter[str] = Counter()
        """Agents with events that are on the way to the disk, which nobody may be told of yet, and how many."""
        self._finished: dict[str, asyncio.Future[ExitRecord]] = {}

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
            agents = Counter(event.agent for event in decision.events)
            self._undurable += agents
            try:
                await self.journal.append(decision.events)
            except AosError:
                self.machine.state = self.journal.load()
                raise
            finally:
                self._undurable -= agents
            failpoint("after-journal")
            self._answer_waiters()
        for effect in decision.effects:
            start = self.clean if isinstance(effect, Discard | Erase) else self.start
            start(self.processes.perform(effect), type(effect).__name__)
        if decision.events:
            async with self.changed:
                self.changed.notify_all()

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
        pooled: Pooled | None = None,
    ) -> tuple[Agent, Process, Stdio | None]:
        """Create an agent and launch the first process of each replica; the streams of the first replica's are
        connected before it runs. `pooled`: a sandbox for the first that waits already, the caller's to discard when this
        fails. When one cannot be made there is no agent."""
        id = self.ids.fresh() if pooled is None else pooled.agent
        decision = self.machine.run(
            id,
            name or made_up(id),
            program,
            restart=restart,
            remove=remove,
            at=self.clock.now(),
            replicas=replicas,
            limit=limit,
            sandbox="" if pooled is None else pooled.sandbox,
        )
        agent = self.machine.state.agents[id]
        processes = [self.machine.state.processes[pid] for pid in agent.pids]
        decision.effects.clear()  # the launch is done here, for its streams and its errors are the caller's
        first, *others = processes
        with self.processes.launching(*agent.pids):
            try:
                await self.commit(decision)
                made = await asyncio.gather(
                    self.processes.launch(first, agent, attach=attach, size=size, pooled=pooled),
                    *(self.processes.launch(process, agent) for process in others),
                    return_exceptions=True,
                )
                if error := next((one for one in made if isinstance(one, BaseException)), None):
                    raise error
            except BaseException:
                gone = self.insist(lambda: self.machine.abandon(id, at=self.clock.now()))
                self.start(gone, f"abandon {id}")
                raise
        stdio = made[0]
        assert not isinstance(stdio, BaseException)
        return agent, first, stdio

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
                await self.processes.freeze(effect.pid, isinstance(effect, Freeze))  # type: ignore[union-attr]
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
        spec = await self.processes.spec(agent)
        try:
            for pid in agent.pids:
                process = self.machine.state.processes[pid]
                if process.state is ProcessState.RUNNING:
                    await self.runtime.update(SandboxId(process.sandbox), spec.limits)
        except AosError:
            await self.insist(lambda: self.machine.update(id, limits=before, at=self.clock.now()))
            raise

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
            if id in self._undurable:
                continue  # whoever makes that durable comes here afterwards
            agent = self.machine.state.agents.get(id)
            record = self._final(agent) if agent is not None else self.journal.last_exit(id)
            if record is not None:
                self._finished.pop(id).set_result(record)
            elif agent is None:
                gone = NotFound(f"agent {id} was removed before it ran", code="agent-not-found", agent=id)
                self._finished.pop(id).set_exception(gone)

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

    def clean(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that the node's end waits for, for a while."""
        task = self.start(work, name)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)


def no_replica(agent: Agent, replica: int) -> NotFound:
    count = len(agent.replicas)
    return NotFound(
        f"agent {agent.name} has no replica {replica + 1}",
        code="replica-not-found",
        hint="it has one" if count == 1 else f"they are numbered from 1 to {count}",
        agent=agent.id,
    )
