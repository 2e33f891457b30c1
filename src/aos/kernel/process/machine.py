"""The process machine: commands in; events, effects and an answer out. No clock, no randomness, no I/O.

State is nothing but the fold of `apply` over the journal, so the machine can be simulated, replayed, and taken
up again after a crash. Supervision follows OTP: the supervisor alone restarts, it waits longer after each failure
in a row, and a run that lasted clears the count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from aos.errors import AlreadyExists, AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.kernel.process.effects import Discard, Erase, Launch, Signal, Terminate, Wake
from aos.kernel.process.events import (
    AgentCreated,
    AgentRemoved,
    ProcessExited,
    ProcessSignaled,
    ProcessSpawned,
    ProcessStarted,
    RemovalRequested,
    RestartScheduled,
    StopRequested,
)
from aos.kernel.process.records import Agent, AgentState, ExitRecord, Process, ProcessState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.kernel.process.effects import Effect
    from aos.kernel.process.events import Event
    from aos.kernel.process.records import Program

__all__ = ["BACKOFF_FIRST", "BACKOFF_LONGEST", "HEALTHY_AFTER", "Decision", "Machine", "State"]

BACKOFF_FIRST = 0.1
"""Seconds before the first restart; doubles with each failure in a row. As docker's."""
BACKOFF_LONGEST = 60.0
"""Seconds."""
HEALTHY_AFTER = 10.0
"""Seconds: a run that lasted this long clears the count of failures."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_SHORTEST_PREFIX = 4


class State(msgspec.Struct):
    """The process table."""

    agents: dict[str, Agent] = {}
    processes: dict[int, Process] = {}
    names: dict[str, str] = {}
    """Name -> agent id."""
    last_pid: int = 0


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

    def run(self, id: str, name: str, program: Program, *, restart: str, remove: bool, at: float) -> Decision:
        """Create an agent and its first process. AlreadyExists `name-in-use`, InvalidArgument `name-invalid`."""
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
        decision = Decision()
        created = AgentCreated(agent=id, at=at, name=name, program=program, restart=restart, remove=remove)
        self._emit(decision, created)
        self._spawn(decision, id, at)
        return decision

    def stop(self, id: str, *, grace: float, at: float) -> Decision:
        """End it and keep it ended, whatever its restart policy."""
        agent = self.state.agents[id]
        decision = Decision()
        if not agent.state.can_stop():
            return decision
        waiting = agent.state is AgentState.RESTARTING
        if agent.state is not AgentState.STOPPING:
            self._emit(decision, StopRequested(agent=id, at=at, kill_at=at + grace))
        if waiting:
            self._finish(decision, id, at)
        else:
            decision.effects.append(Terminate(agent.pid, grace))
        return decision

    def kill(self, id: str, signal: str, *, at: float) -> Decision:
        """Send a signal to its process; after KILL it stays ended, whatever its restart policy, as with docker.
        FailedPrecondition `agent-not-running`."""
        agent = self.state.agents[id]
        process = self.state.processes[agent.pid]
        if process.state is not ProcessState.RUNNING:
            raise not_running(agent)
        decision = Decision()
        if signal == "KILL" and agent.state is not AgentState.STOPPING:
            self._emit(decision, StopRequested(agent=id, at=at, kill_at=at))
        self._emit(decision, ProcessSignaled(agent=id, at=at, pid=agent.pid, signal=signal))
        decision.effects.append(Signal(agent.pid, signal))
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
        self._emit(decision, RemovalRequested(agent=id, at=at))
        if agent.state is AgentState.RESTARTING:
            self._finish(decision, id, at)
        else:
            decision.effects.append(Terminate(agent.pid, 0.0))
        return decision

    # Word from the world.

    def launched(self, pid: int, *, at: float) -> Decision:
        """Its entrypoint runs."""
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is not None and process.state is ProcessState.SPAWNING:
            self._emit(decision, ProcessStarted(agent=process.agent, at=at, pid=pid))
        return decision

    def exited(self, pid: int, exit: ExitRecord, *, at: float) -> Decision:
        """It has ended, or could not be started. The first word counts; later ones change nothing."""
        decision = Decision()
        process = self.state.processes.get(pid)
        if process is None or process.state is ProcessState.EXITED:
            return decision
        before = self.state.agents[process.agent]
        wanted = before.state is not AgentState.STOPPING and not before.removing
        self._emit(decision, ProcessExited(agent=process.agent, at=at, pid=pid, exit=exit))
        agent = self.state.agents[process.agent]
        if wanted and agent.restart == "on-failure" and exit.failed:
            wait = min(BACKOFF_FIRST * 2 ** min(agent.failures - 1, 20), BACKOFF_LONGEST)
            self._emit(decision, RestartScheduled(agent=agent.id, at=at, due=at + wait))
            decision.effects.append(Wake(agent.id, at + wait))
        else:
            self._finish(decision, agent.id, at)
        return decision

    def due(self, id: str, *, at: float) -> Decision:
        """The time of a restart has come."""
        decision = Decision()
        agent = self.state.agents.get(id)
        if agent is not None and agent.state is AgentState.RESTARTING:
            decision.effects.append(Discard(self.state.processes[agent.pid].sandbox))
            self._spawn(decision, id, at)
        return decision

    def abandon(self, id: str, *, at: float) -> Decision:
        """Its first process could not be made and its caller was told: it never was."""
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

    def _spawn(self, decision: Decision, id: str, at: float) -> None:
        pid = self.state.last_pid + 1
        self._emit(decision, ProcessSpawned(agent=id, at=at, pid=pid, sandbox=f"{id}-{pid}"))
        decision.effects.append(Launch(pid))

    def _finish(self, decision: Decision, id: str, at: float) -> None:
        """Nothing more will run: remove it where that is what was asked for."""
        agent = self.state.agents[id]
        if agent.remove or agent.removing:
            self._remove(decision, id, at)
        elif agent.state is not AgentState.EXITED:
            self._emit(decision, StopRequested(agent=id, at=at))

    def _remove(self, decision: Decision, id: str, at: float) -> None:
        sandbox = self.state.processes[self.state.agents[id].pid].sandbox
        self._emit(decision, AgentRemoved(agent=id, at=at))
        decision.effects += [Discard(sandbox), Erase(id)]


def replay(events: Iterable[Event], state: State | None = None) -> State:
    state = state or State()
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> None:
    """One event. It never fails for an event that a Machine emitted, in that order."""
    replace = msgspec.structs.replace
    if isinstance(event, AgentCreated):
        state.agents[event.agent] = Agent(
            id=event.agent,
            name=event.name,
            program=event.program,
            restart=event.restart,
            remove=event.remove,
            created_at=event.at,
            state=AgentState.CREATED,
            pid=0,
        )
        state.names[event.name] = event.agent
        return
    agent = state.agents[event.agent]
    match event:
        case ProcessSpawned():
            again = agent.pid != 0
            if again:
                del state.processes[agent.pid]  # its exit record stays in the journal
            state.last_pid = event.pid
            state.processes[event.pid] = Process(
                event.pid, agent.id, event.sandbox, ProcessState.SPAWNING, event.at
            )
            agent = replace(
                agent,
                pid=event.pid,
                state=AgentState.RUNNING if again else AgentState.CREATED,
                restarts=agent.restarts + again,
                restart_at=None,
            )
        case ProcessStarted():
            process = state.processes[event.pid]
            state.processes[event.pid] = replace(process, state=ProcessState.RUNNING, started_at=event.at)
            if agent.state is AgentState.CREATED:
                agent = replace(agent, state=AgentState.RUNNING)
        case ProcessExited():
            process = state.processes[event.pid]
            state.processes[event.pid] = replace(process, state=ProcessState.EXITED, exit=event.exit)
            ran = event.at - (process.started_at or event.at)
            failures = 1 if ran >= HEALTHY_AFTER else agent.failures + 1
            agent = replace(
                agent,
                state=AgentState.EXITED,
                finished_at=event.at,
                failures=failures if event.exit.failed else 0,
            )
        case RestartScheduled():
            agent = replace(agent, state=AgentState.RESTARTING, restart_at=event.due, finished_at=None)
        case StopRequested():
            ended = state.processes[agent.pid].state is ProcessState.EXITED
            agent = replace(
                agent,
                state=AgentState.EXITED if ended else AgentState.STOPPING,
                finished_at=event.at if ended else None,
                restart_at=None,
                kill_at=event.kill_at,
            )
        case RemovalRequested():
            stopping = agent.state is not AgentState.RESTARTING
            state_now = AgentState.STOPPING if stopping else agent.state
            agent = replace(agent, removing=True, state=state_now, kill_at=None)
        case AgentRemoved():
            del state.agents[agent.id]
            del state.names[agent.name]
            state.processes.pop(agent.pid, None)
            return
        case ProcessSignaled():
            return
    state.agents[agent.id] = agent


def not_running(agent: Agent) -> AosError:
    return FailedPrecondition(
        f"agent {agent.name} is {agent.state.value}, not running",
        code="agent-not-running",
        hint="`aos ps -a` shows its state, `aos logs` what it wrote",
        agent=agent.id,
    )
