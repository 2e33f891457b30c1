"""Taking up what there is after a start of the node: the journal and the sandboxes, brought together.

See docs/kernel.md, "After a crash".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aos.ids import SandboxId
from aos.kernel.process.effects import Freeze, Launch, Terminate, Thaw, Wake
from aos.kernel.process.records import AgentState, ProcessState
from aos.runtime.state import ExitStatus, SandboxState

if TYPE_CHECKING:
    from aos.kernel.process.records import Agent, Process
    from aos.node.node import Node
    from aos.runtime.state import Sandbox

__all__ = ["adopt"]

log = logging.getLogger("aosd")


async def adopt(node: Node) -> None:
    """Afterwards every process is watched or has an exit record, and every agent goes on as it is to."""
    there = {sandbox.id: sandbox for sandbox in await node.runtime.list()}
    for process in list(node.machine.state.processes.values()):
        found = there.pop(SandboxId(process.sandbox), None)
        if process.lives:
            await _adopt_process(node, process, found)
    for id in there:
        if _is_ours(id):
            log.info("sandbox %s belongs to no agent: deleting it", id)
            node.start(node.processes.discard(id), f"discard {id}")
    for path in node.processes.logs():
        if path.name.partition(".")[0] not in node.machine.state.agents:
            path.unlink()
    for agent in list(node.machine.state.agents.values()):
        _go_on(node, agent)
    await node.commit(node.machine.boot(node.boot, at=node.clock.now()))


async def _adopt_process(node: Node, process: Process, found: Sandbox | None) -> None:
    agent = node.machine.state.agents[process.agent]
    state = found.state if found is not None else None
    exit = found.exit if found is not None else None
    rebooted = node.machine.state.boot not in ("", node.boot)
    if rebooted and (exit is None or exit.cause == "lost"):
        await _lost(node, process, found, "the host went down or was booted anew under it")
    elif found is not None and state in (SandboxState.RUNNING, SandboxState.PAUSED, SandboxState.STOPPED):
        await node.commit(node.machine.launched(process.pid, at=node.clock.now()))
        node.processes.watch(process.pid)
        if state is SandboxState.PAUSED and not agent.paused:
            await node.processes.perform(Thaw(process.pid))
        elif state is SandboxState.RUNNING and agent.paused:
            await node.processes.perform(Freeze(process.pid))
    elif process.state is ProcessState.SPAWNING and agent.restarts:
        node.start(node.processes.perform(Launch(process.pid)), f"relaunch {process.sandbox}")
    elif process.state is ProcessState.SPAWNING:
        why = "it never started: the node ended while its sandbox was being made"
        await _lost(node, process, found, why)
    else:
        await _lost(node, process, found, "its sandbox is gone")


async def _lost(node: Node, process: Process, found: Sandbox | None, detail: str) -> None:
    if found is not None:
        await node.runtime.delete(found.id, force=True)
    await node.processes.ended(process.pid, ExitStatus("lost", finished_at=None, detail=detail))


def _go_on(node: Node, agent: Agent) -> None:
    """What was under way: pending restarts, and ends that had been decided."""
    for number, replica in enumerate(agent.replicas):
        if replica.restart_at is not None:
            wake = Wake(agent.id, replica.restart_at, number)
            node.start(node.processes.perform(wake), f"wake {agent.id}")
            continue
        process = node.machine.state.processes[replica.pid]
        if process.lives and (agent.state is AgentState.STOPPING or process.condemned):
            kill_at = agent.kill_at or 0.0 if agent.stopped or agent.removing else None
            grace = agent.program.grace if kill_at is None else max(0.0, kill_at - node.clock.now())
            node.start(node.processes.perform(Terminate(process.pid, grace)), f"terminate {agent.id}")


def _is_ours(id: SandboxId) -> bool:
    """Made for an agent, or for one to come (aos.node.pools); build steps have sandboxes on this backend, too, and are
    none of the node's."""
    agent, _, pid = id.rpartition("-")
    return len(agent) == 12 and pid.isdecimal()
