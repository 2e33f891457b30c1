"""An agent in the words of docs/kernel.md: what a list says of it, and everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from aos.ids import SandboxId
from aos.kernel.process.events import ProcessExited, ProcessSpawned, ProcessStarted
from aos.kernel.process.records import ProcessState

if TYPE_CHECKING:
    from aos.kernel.process.records import Agent, ExitRecord, Process
    from aos.node.node import Node

__all__ = ["everything", "summary"]


def summary(node: Node, agent: Agent, runtime: str) -> dict[str, Any]:
    """For `agent.list`; `runtime`: the default backend."""
    processes = [node.machine.state.processes[pid] for pid in agent.pids]
    running = [process for process in processes if process.state is ProcessState.RUNNING]
    first = next(iter(running), processes[0])
    program = agent.program
    return {
        "agent": agent.id,
        "name": agent.name,
        "package": {
            "reference": program.reference,
            "digest": program.digest,
            "name": program.package_name,
            "version": program.package_version,
        },
        "status": agent.state.value,
        "pid": first.pid,
        "replicas": len(agent.replicas),
        "running": len(running),
        "health": _health(running),
        "ready": None if program.readiness is None else len(running) > 0 and all(p.ready for p in running),
        "created_at": agent.created_at,
        "started_at": min((one.started_at or 0.0 for one in running), default=first.started_at),
        "finished_at": agent.finished_at,
        "exit": msgspec.to_builtins(_worst_exit(processes)),
        "gave_up": agent.gave_up,
        "restart": agent.restart,
        "restarts": agent.restarts,
        "runtime": node.runtime.name_of(SandboxId(first.sandbox)) or program.runtime or runtime,
        "command": list(program.command),
    }


def everything(node: Node, agent: Agent, runtime: str) -> dict[str, Any]:
    """For `agent.inspect`."""
    process = node.machine.state.processes[agent.pid]
    return {
        **summary(node, agent, runtime),
        "restart_limit": msgspec.to_builtins(agent.limit),
        "replica": [_replica(node, agent, number) for number in range(len(agent.replicas))],
        "remove": agent.remove,
        "terminal": agent.program.terminal,
        "stop_signal": agent.program.stop_signal,
        "stop_grace": agent.program.grace,
        "overrides": agent.program.overrides,
        "sandbox": process.sandbox,
        "log": str(node.processes.log_of(agent.id)),
        "processes": _processes(node, agent),
    }


def _replica(node: Node, agent: Agent, number: int) -> dict[str, Any]:
    replica = agent.replicas[number]
    process = node.machine.state.processes[replica.pid]
    probes = node.probes
    return {
        "pid": process.pid,
        "state": process.state.value,
        "sandbox": process.sandbox,
        "started_at": process.started_at,
        "restart_at": replica.restart_at,
        "failures": replica.failures,
        "log": str(node.processes.log_of(agent.id, number)),
        "user_ids": _user_ids(node.runtime.users_of(SandboxId(process.sandbox))),
        **{
            kind: {"status": status, "answers": msgspec.to_builtins(probes.answers(process.pid, kind))}
            for kind, status in (("health", process.health), ("readiness", process.ready))
            if status not in ("", None)
        },
    }


def _user_ids(users: tuple[int, ...] | str) -> dict[str, object] | None:
    if isinstance(users, str):
        return {"host": users} if users else None
    return {"first": users[0], "count": users[1]}


def _processes(node: Node, agent: Agent) -> list[dict[str, Any]]:
    """Every process it ever had, from the journal."""
    found: dict[int, dict[str, Any]] = {}
    for event in node.journal.events_of(agent.id):
        if isinstance(event, ProcessSpawned):
            found[event.pid] = {"pid": event.pid, "sandbox": event.sandbox, "spawned_at": event.at}
        elif isinstance(event, ProcessStarted):
            found[event.pid]["started_at"] = event.at
        elif isinstance(event, ProcessExited):
            found[event.pid]["exit"] = msgspec.to_builtins(event.exit)
    return list(found.values())


def _health(running: list[Process]) -> str:
    """The worst of them; empty when nothing asks."""
    known = {process.health for process in running}
    return next((word for word in ("unhealthy", "starting", "healthy") if word in known), "")


def _worst_exit(processes: list[Process]) -> ExitRecord | None:
    """Of the first that failed, or of the first that has ended."""
    exits = [process.exit for process in processes if process.exit is not None]
    return next((exit for exit in exits if exit.failed), exits[0] if exits else None)
