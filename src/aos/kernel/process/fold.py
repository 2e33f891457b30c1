"""The process table, and how each event changes it: state is the fold of `apply` over the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from aos.kernel.process.events import (
    AgentCreated,
    AgentPaused,
    AgentRemoved,
    AgentUnpaused,
    AgentUpdated,
    GaveUp,
    HealthChanged,
    NodeBooted,
    ProcessCondemned,
    ProcessExited,
    ProcessSpawned,
    ProcessStarted,
    ReadinessChanged,
    RemovalRequested,
    RestartScheduled,
    StopRequested,
)
from aos.kernel.process.records import Agent, AgentState, Process, ProcessState, Replica
from aos.kernel.process.restart import HEALTHY_AFTER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.kernel.process.events import Event

__all__ = ["State", "apply", "replay"]

_replace = msgspec.structs.replace


class State(msgspec.Struct):
    """The process table."""

    agents: dict[str, Agent] = {}
    processes: dict[int, Process] = {}
    """The last one of each replica."""
    names: dict[str, str] = {}
    """Name -> agent id."""
    last_pid: int = 0
    boot: str = ""
    """The boot id of the host under which it last ran; empty before the first."""


def replay(events: Iterable[Event], state: State | None = None) -> State:
    state = state or State()
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> None:
    """One event. It never fails for an event that a Machine emitted, in that order."""
    match event:
        case NodeBooted():
            state.boot = event.boot
        case AgentCreated():
            state.names[event.name] = event.agent
            state.agents[event.agent] = Agent(
                id=event.agent,
                name=event.name,
                program=event.program,
                restart=event.restart,
                remove=event.remove,
                created_at=event.at,
                state=AgentState.CREATED,
                replicas=tuple(Replica() for _ in range(event.replicas)),
                limit=event.limit,
            )
        case AgentRemoved():
            agent = state.agents.pop(event.agent)
            del state.names[agent.name]
            for pid in agent.pids:
                del state.processes[pid]
        case _:
            agent = _changed(state, state.agents[event.agent], event)
            now = _state_of(agent, [state.processes[pid] for pid in agent.pids])
            if now is not AgentState.EXITED:
                agent = _replace(agent, state=now, finished_at=None)
            elif agent.state is not now:
                agent = _replace(agent, state=now, finished_at=event.at)
            state.agents[agent.id] = agent


def _changed(state: State, agent: Agent, event: Event) -> Agent:
    """The agent after an event of its own; the processes' side is done here as well."""
    match event:
        case ProcessSpawned():
            before = agent.replicas[event.replica]
            if before.pid:
                del state.processes[before.pid]  # its exit record stays in the journal
            state.last_pid = event.pid
            state.processes[event.pid] = Process(
                event.pid, agent.id, event.sandbox, ProcessState.SPAWNING, event.at, replica=event.replica
            )
            agent = _replace(agent, restarts=agent.restarts + bool(before.pid))
            return _with(agent, event.replica, _replace(before, pid=event.pid, restart_at=None))
        case ProcessStarted():
            _process(
                state,
                event.pid,
                state=ProcessState.RUNNING,
                started_at=event.at,
                health="starting" if agent.program.health else "",
                ready=False if agent.program.readiness else None,
            )
        case ProcessExited():
            process = _process(state, event.pid, state=ProcessState.EXITED, exit=event.exit)
            ran = event.at - (process.started_at or event.at)
            before = agent.replicas[process.replica]
            failures = 0 if not event.exit.failed else 1 if ran >= HEALTHY_AFTER else before.failures + 1
            return _with(agent, process.replica, _replace(before, failures=failures))
        case ProcessCondemned():
            _process(state, event.pid, condemned=event.cause, condemned_detail=event.detail)
        case HealthChanged():
            _process(state, event.pid, health=event.status)
        case ReadinessChanged():
            _process(state, event.pid, ready=event.ready)
        case RestartScheduled():
            # Of an agent that had ended this is a new beginning: the host has booted.
            recent = () if agent.ending else agent.recent
            if agent.limit is not None:
                kept = [when for when in recent if event.at - when < agent.limit.within]
                recent = (*kept, event.at)[-agent.limit.restarts :]
            before = agent.replicas[event.replica]
            agent = _replace(agent, stopped=False, gave_up="", kill_at=None, recent=recent)
            return _with(agent, event.replica, _replace(before, restart_at=event.due))
        case GaveUp():
            return _waiting_no_more(_replace(agent, gave_up=event.reason, paused=False))
        case AgentPaused():
            return _replace(agent, paused=True)
        case AgentUnpaused():
            return _replace(agent, paused=False)
        case AgentUpdated():
            program = agent.program
            if event.limits is not None:
                program = _replace(program, overrides={**program.overrides, "limits": event.limits})
            return _replace(
                agent, program=program, restart=agent.restart if event.restart is None else event.restart
            )
        case StopRequested():
            return _waiting_no_more(_replace(agent, stopped=True, paused=False, kill_at=event.kill_at))
        case RemovalRequested():
            return _waiting_no_more(_replace(agent, removing=True, paused=False, kill_at=None))
    return agent


def _state_of(agent: Agent, processes: list[Process]) -> AgentState:
    waiting = any(replica.restart_at is not None for replica in agent.replicas)
    lives = any(process.lives for process in processes)
    runs = any(process.state is ProcessState.RUNNING for process in processes)
    if not lives and not waiting:
        return AgentState.EXITED if processes else AgentState.CREATED
    if agent.ending:
        return AgentState.STOPPING
    if agent.paused:
        return AgentState.PAUSED
    if runs:
        return AgentState.RUNNING
    if waiting:
        return AgentState.RESTARTING
    return AgentState.RUNNING if agent.restarts else AgentState.CREATED


def _process(table: State, pid: int, **fields: object) -> Process:
    """Change a process; return it as it was before."""
    before = table.processes[pid]
    table.processes[pid] = _replace(before, **fields)
    return before


def _with(agent: Agent, replica: int, value: Replica) -> Agent:
    return _replace(agent, replicas=(*agent.replicas[:replica], value, *agent.replicas[replica + 1 :]))


def _waiting_no_more(agent: Agent) -> Agent:
    return _replace(agent, replicas=tuple(_replace(one, restart_at=None) for one in agent.replicas))
