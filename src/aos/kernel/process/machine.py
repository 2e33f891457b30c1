"""The process machine: commands in; events, effects and an answer out. No clock, no randomness, no I/O.

State is nothing but the fold of `apply` (fold.py) over the journal, so the machine can be simulated, replayed, and
taken up again after a crash. Supervision follows OTP: an agent is a supervisor of one or more replicas; it alone
restarts, each replica by itself; it waits longer after each failure in a row, a run that lasted clears the count,
and where there is a limit it gives up as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from aos.errors import AlreadyExists, AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.kernel.process.effects import Discard, Erase, Freeze, Launch, Signal, Terminate, Thaw, Wake
from aos.kernel.process.events import (
    AgentCreated,
    AgentPaused,
    AgentRemoved,
    AgentUnpaused,
    AgentUpdated,
    GaveUp,
    HealthChanged,
    NetworkRefused,
    NodeBooted,
    ProcessCondemned,
    ProcessExited,
    ProcessSignaled,
    ProcessSpawned,
    ProcessStarted,
    ReadinessChanged,
    RemovalRequested,
    RestartScheduled,
    StopRequested,
)
from aos.kernel.process.fold import State, apply
from aos.kernel.process.records import Agent, AgentState, ExitRecord, Process, ProcessState
from aos.kernel.process.restart import backoff, parse_restart, restarts, starts_at_boot

if TYPE_CHECKING:
    from aos.kernel.process.effects import Effect
    from aos.kernel.process.events import Event
    from aos.kernel.process.records import Program
    from aos.kernel.process.restart import RestartLimit

__all__ = ["Decision", "Machine", "not_running"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_SHORTEST_PREFIX = 4
REPLICAS_MOST = 1000


@dataclass(slots=True)
class Decision:
    """Events to journal, then effects to perform."""

    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)


class Machine:
    """Each command decides on the present state and applies its events to it at once; whoever calls journals
    them before anything else happens. An AosError leaves the state as it was."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()

    # Commands of callers.

    def run(
        self,
        id: str,
        name: str,
        program: Program,
        *,
        restart: str,
        remove: bool,
        at: float,
        replicas: int = 1,
        limit: RestartLimit | None = None,
        sandbox: str = "",
    ) -> Decision:
        """Create an agent and the first process of each replica; `sandbox` is one that is there already, and waits for
        the first of these. AlreadyExists `name-in-use`, InvalidArgument `name-invalid`, `restart-unknown`,
        `replicas-invalid`."""
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"{name!r:.100} is not a name for an agent",
                code="name-invalid",
                hint="letters, digits, '_', '.' and '-', a letter or digit first, at most 63",
                name=name[:100],
            )
        if name in self.state.names:
            raise AlreadyExists(
                f"the name {name!r} belongs to agent {self.state.names[name]}",
                code="name-in-use",
                hint=f"remove that agent (`aos rm {name}`) or choose another name",
                name=name,
            )
        if id in self.state.agents:
            raise AlreadyExists(f"agent {id} exists", code="agent-exists", agent=id)
        if not 1 <= replicas <= REPLICAS_MOST:
            raise InvalidArgument(
                f"an agent has 1 to {REPLICAS_MOST} replicas, not {replicas}", code="replicas-invalid"
            )
        parse_restart(restart)
        decision = Decision()
        created = AgentCreated(
            agent=id,
            at=at,
            name=name,
            program=program,
            restart=restart,
            remove=remove,
            replicas=replicas,
            limit=limit,
        )
        self._emit(decision, created)
        for replica in range(replicas):
            self._spawn(decision, id, replica, at, "" if replica else sandbox)
        return decision

    def stop(self, id: str, *, grace: float | None = None, at: float) -> Decision:
        """End it and keep it ended, whatever its restart policy; `grace` None: the seconds that its program has."""
        agent = self.state.agents[id]
        decision = Decision()
        if not agent.state.can_stop():
            return decision
        grace = agent.program.grace if grace is None else grace
        if not agent.stopped and not agent.removing:
            self._emit(decision, StopRequested(agent=id, at=at, kill_at=at + grace))
        self._end_all(decision, id, grace, at)
        return decision

    def kill(self, id: str, signal: str, *, at: float) -> Decision:
        """Send a signal to its processes; after KILL it stays ended, whatever its restart policy, as with docker.
        FailedPrecondition `agent-not-running`."""
        agent = self.state.agents[id]
        running = [one for one in self._living(id) if one.state is ProcessState.RUNNING]
        if not running:
            raise not_running(agent)
        decision = Decision()
        if signal == "KILL" and not agent.stopped and not agent.removing:
            self._emit(decision, StopRequested(agent=id, at=at, kill_at=at))
            self._end_all(decision, id, 0.0, at, but=running)
        for process in running:
            self._emit(decision, ProcessSignaled(agent=id, at=at, pid=process.pid, signal=signal))
            decision.effects.append(Signal(process.pid, signal))
        return decision

    def pause(self, id: str, *, at: float) -> Decision:
        """Freeze its processes, those that are restarted meanwhile too. FailedPrecondition `agent-not-running`."""
        agent = self.state.agents[id]
        decision = Decision()
        if agent.state is AgentState.PAUSED:
            return decision
        if agent.state is not AgentState.RUNNING:
            raise not_running(agent)
        self._emit(decision, AgentPaused(agent=id, at=at))
        decision.effects += [Freeze(one.pid) for one in self._living(id) if one.state is ProcessState.RUNNING]
        return decision

    def unpause(self, id: str, *, at: float) -> Decision:
        """FailedPrecondition `agent-not-paused`."""
        agent = self.state.agents[id]
        if agent.state is not AgentState.PAUSED:
            raise FailedPrecondition(
                f"agent {agent.name} is {agent.state.value}, not paused", code="agent-not-paused", agent=id
            )
        decision = Decision()
        self._emit(decision, AgentUnpaused(agent=id, at=at))
        decision.effects += [Thaw(one.pid) for one in self._living(id) if one.state is ProcessState.RUNNING]
        return decision

    def update(
        self, id: str, *, limits: dict[str, Any] | None = None, restart: str | None = None, at: float
    ) -> Decision:
        """Change limits (all that are to hold) or the restart policy, for now and for later processes; a restart that
        is pending stays so. InvalidArgument `restart-unknown`."""
        agent = self.state.agents[id]
        if restart is not None:
            parse_restart(restart)
            if agent.remove and restart != "never":
                raise InvalidArgument(
                    f"agent {agent.name} is removed once it has finished; it cannot be restarted too",
                    code="restart-unknown",
                    hint="only `never` goes together with --rm",
                )
        decision = Decision()
        if (limits is not None and limits != agent.program.overrides.get("limits")) or (
            restart is not None and restart != agent.restart
        ):
            self._emit(decision, AgentUpdated(agent=id, at=at, limits=limits, restart=restart))
        return decision

    def remove(self, id: str, *, force: bool, at: float) -> Decision:
        """Forget it and delete what it left. FailedPrecondition `agent-running` without `force`."""
        agent = self.state.agents[id]
        decision = Decision()
        if agent.state.can_remove():
            self._remove(decision, id, at)
            return decision
        if not force:
            raise FailedPrecondition(
                f"agent {agent.name} is {agent.state.value}",
                code="agent-running",
                hint=f"stop it first (`aos stop {agent.name}`), or force it (`aos rm -f {agent.name}`)",
                agent=id,
            )
        if not agent.removing:
            self._emit(decision, RemovalRequested(agent=id, at=at))
        self._end_all(decision, id, 0.0, at)
        return decision

    # Word from the world.

    def launched(self, pid: int, *, at: float) -> Decision:
        """Its entrypoint runs."""
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is not None and process.state is ProcessState.SPAWNING:
            self._emit(decision, ProcessStarted(agent=process.agent, at=at, pid=pid))
            if self.state.agents[process.agent].paused:
                decision.effects.append(Freeze(pid))
        return decision

    def refused(
        self, pid: int, protocol: str, destination: str, port: int | None, count: int, *, at: float
    ) -> Decision:
        """Its network did not let it reach something."""
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is not None:
            event = NetworkRefused(
                agent=process.agent,
                at=at,
                pid=pid,
                protocol=protocol,
                destination=destination,
                port=port,
                count=count,
            )
            self._emit(decision, event)
        return decision

    def exited(self, pid: int, exit: ExitRecord, *, at: float) -> Decision:
        """It has ended, or could not be started. The first word counts; later ones change nothing."""
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is None or process.state is ProcessState.EXITED:
            return decision
        if process.condemned:
            exit = msgspec.structs.replace(exit, cause=process.condemned, detail=process.condemned_detail)
        ending = self.state.agents[process.agent].ending
        self._emit(decision, ProcessExited(agent=process.agent, at=at, pid=pid, exit=exit))
        agent = self.state.agents[process.agent]
        if not ending and restarts(agent.restart, exit):
            failures = agent.replicas[process.replica].failures
            reason = _exhausted(agent, failures, at)
            if reason:
                self._emit(decision, GaveUp(agent=agent.id, at=at, reason=reason))
                self._end_all(decision, agent.id, agent.program.grace, at)
            else:
                self._schedule(decision, agent.id, process.replica, at, at + backoff(failures))
        self._settle(decision, agent.id, at)
        return decision

    def due(self, id: str, replica: int = 0, *, at: float) -> Decision:
        """The time of a restart has come."""
        decision = Decision()
        agent = self.state.agents.get(id)
        if agent is not None and agent.replicas[replica].restart_at is not None:
            last = self.state.processes[agent.replicas[replica].pid]
            decision.effects.append(Discard(last.sandbox))
            self._spawn(decision, id, replica, at)
        return decision

    def health(self, pid: int, status: str, detail: str, *, restart: bool, at: float) -> Decision:
        """What its health checks say now: `starting`, `healthy` or `unhealthy`; with `restart` the last ends it."""
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is None or process.state is not ProcessState.RUNNING:
            return decision
        if status != process.health:
            self._emit(
                decision, HealthChanged(agent=process.agent, at=at, pid=pid, status=status, detail=detail)
            )
        if status == "unhealthy" and restart:
            self._condemn(decision, process, "health", detail, at)
        return decision

    def readiness(self, pid: int, ready: bool, detail: str, *, at: float) -> Decision:
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is not None and process.state is ProcessState.RUNNING and process.ready is not ready:
            self._emit(
                decision, ReadinessChanged(agent=process.agent, at=at, pid=pid, ready=ready, detail=detail)
            )
        return decision

    def condemn(self, pid: int, cause: str, detail: str, *, at: float) -> Decision:
        """End a process for a reason of the kernel's own; what follows is its restart policy's to say."""
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is not None and process.state is not ProcessState.EXITED:
            self._condemn(decision, process, cause, detail, at)
        return decision

    def boot(self, boot: str, *, at: float) -> Decision:
        """The host's boot id, once all that ended has been told: after a new one, agents that are to run always do."""
        decision = Decision()
        before = self.state.boot
        if boot == before:
            return decision
        self._emit(decision, NodeBooted(agent="", at=at, boot=boot))
        for agent in list(self.state.agents.values()) if before else ():
            if agent.state is AgentState.EXITED and starts_at_boot(agent.restart, stopped=agent.stopped):
                for replica in range(len(agent.replicas)):
                    self._schedule(decision, agent.id, replica, at, at)
        return decision

    def abandon(self, id: str, *, at: float) -> Decision:
        """Its first processes could not be made and its caller was told: it never was."""
        decision = Decision()
        if id in self.state.agents:
            self._remove(decision, id, at)
        return decision

    # Looking up.

    def find(self, text: str) -> Agent:
        """By name, id, or a unique prefix of an id. NotFound `agent-not-found`, InvalidArgument `ambiguous`."""
        state = self.state
        id = state.names.get(text, text)
        if id in state.agents:
            return state.agents[id]
        matches = (
            [key for key in state.agents if key.startswith(text)] if len(text) >= _SHORTEST_PREFIX else []
        )
        if len(matches) > 1:
            raise InvalidArgument(
                f"{text!r} is the beginning of {len(matches)} agents' ids",
                code="agent-ambiguous",
                hint="give more digits: " + ", ".join(sorted(matches)[:4]),
            )
        if not matches:
            raise NotFound(
                f"no agent {text!r:.100}",
                code="agent-not-found",
                hint="`aos ps -a` lists them",
                agent=text[:100],
            )
        return state.agents[matches[0]]

    # How events come about.

    def _emit(self, decision: Decision, event: Event) -> None:
        apply(self.state, event)
        decision.events.append(event)

    def _living(self, id: str) -> list[Process]:
        processes = [self.state.processes[pid] for pid in self.state.agents[id].pids]
        return [process for process in processes if process.lives]

    def _spawn(self, decision: Decision, id: str, replica: int, at: float, sandbox: str = "") -> None:
        pid = self.state.last_pid + 1
        sandbox = sandbox or f"{id}-{pid}"
        spawned = ProcessSpawned(agent=id, at=at, pid=pid, sandbox=sandbox, replica=replica)
        self._emit(decision, spawned)
        decision.effects.append(Launch(pid))

    def _schedule(self, decision: Decision, id: str, replica: int, at: float, due: float) -> None:
        self._emit(decision, RestartScheduled(agent=id, at=at, due=due, replica=replica))
        decision.effects.append(Wake(id, due, replica))

    def _condemn(self, decision: Decision, process: Process, cause: str, detail: str, at: float) -> None:
        agent = self.state.agents[process.agent]
        if process.condemned or agent.ending:
            return
        condemned = ProcessCondemned(agent=agent.id, at=at, pid=process.pid, cause=cause, detail=detail)
        self._emit(decision, condemned)
        decision.effects.append(Terminate(process.pid, agent.program.grace))

    def _end_all(
        self, decision: Decision, id: str, grace: float, at: float, but: list[Process] | None = None
    ) -> None:
        """End what lives of it; when nothing does, it has finished."""
        spared = {process.pid for process in but or ()}
        decision.effects += [
            Terminate(process.pid, grace) for process in self._living(id) if process.pid not in spared
        ]
        self._settle(decision, id, at)

    def _settle(self, decision: Decision, id: str, at: float) -> None:
        """Once nothing more will run: remove it where that is what was asked for."""
        agent = self.state.agents.get(id)
        if agent is not None and agent.state is AgentState.EXITED and (agent.remove or agent.removing):
            self._remove(decision, id, at)

    def _remove(self, decision: Decision, id: str, at: float) -> None:
        agent = self.state.agents[id]
        sandboxes = tuple(self.state.processes[pid].sandbox for pid in agent.pids)
        self._emit(decision, AgentRemoved(agent=id, at=at))
        decision.effects.append(Erase(id, agent.name, sandboxes, agent.program))


def _exhausted(agent: Agent, failures: int, at: float) -> str:
    """Why it may not be restarted once more; empty when it may."""
    _, retries = parse_restart(agent.restart)
    if retries is not None and failures > retries:
        return f"it failed {failures} times in a row, and {agent.restart} allows {retries} restarts"
    limit = agent.limit
    if limit is not None:
        recent = sum(at - when < limit.within for when in agent.recent)
        if recent >= limit.restarts:
            return f"it was restarted {recent} times within {limit.within:g} s, which is its limit"
    return ""


def not_running(agent: Agent) -> AosError:
    return FailedPrecondition(
        f"agent {agent.name} is {agent.state.value}, not running",
        code="agent-not-running",
        hint=f"`aos unpause {agent.name}` lets it go on"
        if agent.state is AgentState.PAUSED
        else "`aos ps -a` shows its state, `aos logs` what it wrote",
        agent=agent.id,
    )
