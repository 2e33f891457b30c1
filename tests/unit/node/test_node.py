"""The node over the memory backend: what it does with what it finds, and with a runtime that refuses or vanishes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from aos.errors import AosError, FailedPrecondition, Internal, NotImplemented
from aos.kernel.process.health import Probe
from aos.kernel.process.records import Agent, AgentState, ExitRecord, ProcessState, Program
from aos.runtime.state import SandboxState
from node_world import CRASH_CODE, Host, run, until

if TYPE_CHECKING:
    from pathlib import Path

    from aos.node.node import Node


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "logs")


def exit_of(node: Node, agent: Agent) -> ExitRecord:
    exit = node.machine.state.processes[node.machine.state.agents[agent.id].pid].exit
    assert exit is not None
    return exit


def test_after_a_boot_what_ran_is_lost_and_runs_again_as_its_policy_says(host: Host) -> None:
    async def main() -> None:
        policies = ("never", "on-failure", "always", "unless-stopped")
        async with host.node() as node:
            left = {policy: await run(node, f"left-{policy}", "sleep", restart=policy) for policy in policies}
            ended = {
                policy: await run(node, f"ended-{policy}", "sleep", restart=policy) for policy in policies
            }
            for agent in ended.values():
                waiting = asyncio.ensure_future(node.wait(agent.id))
                await node.commit(node.machine.stop(agent.id, at=node.clock.now()))
                await waiting
        async with host.node() as node:  # the daemon's end is none of an agent's
            assert all(
                node.machine.state.agents[agent.id].state is AgentState.RUNNING for agent in left.values()
            )
            assert all(
                node.machine.state.agents[agent.id].state is AgentState.EXITED for agent in ended.values()
            )
        host.reboot()
        async with host.node() as node:
            agents = node.machine.state.agents
            lost = exit_of(node, left["never"])
            assert (lost.cause, lost.code, lost.signal) == ("lost", None, None)
            assert "booted anew" in lost.detail
            running = [left["on-failure"], left["always"], left["unless-stopped"], ended["always"]]
            await until(node, lambda: all(agents[agent.id].state is AgentState.RUNNING for agent in running))
            still = [left["never"], ended["never"], ended["on-failure"], ended["unless-stopped"]]
            assert all(agents[agent.id].state is AgentState.EXITED for agent in still)

    asyncio.run(main())


def test_an_exit_before_the_boot_keeps_its_code(host: Host) -> None:
    async def main() -> None:
        async with host.node() as node:
            agent = await run(node, "a", "sleep")
        held = next(iter(host.world.values()))
        held.task.cancel()  # it ends while no node is there
        await asyncio.wait([held.task])
        host.boot = "second"
        async with host.node() as node:
            record = await node.wait(agent.id)
            assert (record.cause, record.signal) == ("signaled", 9)

    asyncio.run(main())


def test_what_is_paused_is_what_the_journal_says(host: Host) -> None:
    async def main() -> None:
        async with host.node() as node:
            agent = await run(node, "a", "sleep")
            await node.pause(agent.id)
        [held] = host.world.values()
        assert held.state is SandboxState.PAUSED
        held.state = SandboxState.RUNNING  # killed before it was frozen
        async with host.node() as node:
            assert held.state is SandboxState.PAUSED
            await node.unpause(agent.id)
        held.state = SandboxState.PAUSED  # killed before it was thawed
        async with host.node() as node:
            assert held.state is SandboxState.RUNNING

    asyncio.run(main())


def test_what_the_runtime_refuses_has_not_happened(host: Host) -> None:
    async def main() -> None:
        async with host.node() as node:
            agent = await run(node, "a", "sleep")
            host.runtime.faults["pause"] = NotImplemented("it cannot", code="capability-missing")
            with pytest.raises(NotImplemented):
                await node.pause(agent.id)
            assert node.machine.state.agents[agent.id].state is AgentState.RUNNING
            await node.update(agent.id, limits={"memory": 5 << 20}, restart=None)
            host.runtime.faults["update"] = FailedPrecondition("too small", code="limit-refused")
            with pytest.raises(FailedPrecondition):
                await node.update(agent.id, limits={"memory": 4 << 20}, restart=None)
            assert node.machine.state.agents[agent.id].program.overrides["limits"] == {"memory": 5 << 20}
            [held] = host.world.values()
            assert held.limits.memory == 5 << 20

    asyncio.run(main())


def test_health_goes_on_after_the_daemon_was_killed(host: Host) -> None:
    async def main() -> None:
        probe = Probe(exec=("exit", "1"), interval=0.01, retries=3)
        async with host.node() as node:
            agent = await run(node, "a", "sleep", health=probe)
        async with host.node() as node:
            record = await node.wait(agent.id)
            assert (record.cause, record.detail) == ("health", "it ended with exit code 1")

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(12))
def test_random_faults_and_kills_leave_nothing_over_and_nothing_untrue(host: Host, seed: int) -> None:
    """Commands at random, refusals of the runtime, kills of processes, of the node, and of the host. In the end every
    process is a sandbox that runs or has a true exit record, and every sandbox is a process's."""
    chance = random.Random(seed)
    started: dict[str, str] = {}
    stopped: set[str] = set()

    async def act(node: Node, number: int) -> None:
        agents = list(node.machine.state.agents.values())
        what = chance.choice(["run", "run", "stop", "kill", "remove", "pause", "unpause", "die", "fault"])
        if what == "fault":
            call = chance.choice(["create", "start", "exec", "delete", "pause", "update"])
            host.runtime.faults[call] = Internal("it failed", code="runtime-failed")
        elif what == "die":
            for held in chance.sample(sorted(host.world.values(), key=id), min(1, len(host.world))):
                if held.task is not None:
                    held.task.cancel()
        elif what == "run":
            command = chance.choice([("sleep",), ("exit", "0"), ("exit", "3"), ("brief",)])
            restart = chance.choice(["never", "on-failure:1", "always", "unless-stopped"])
            program = Program("it:1", "sha256:0", "it", "1", command, "", {}, grace=0.0)
            agent, _, _ = await node.run(
                program,
                name=f"n{number}",
                restart=restart,
                remove=chance.random() < 0.2,
                attach=False,
                size=None,
                replicas=chance.choice([1, 1, 3]),
            )
            started[agent.id] = command[0]
        elif agents:
            agent = chance.choice(agents)
            at = node.clock.now()
            match what:
                case "stop":
                    await node.commit(node.machine.stop(agent.id, at=at))
                    stopped.add(agent.id)
                case "kill":
                    await node.commit(node.machine.kill(agent.id, "KILL", at=at))
                    stopped.add(agent.id)
                case "remove":
                    await node.commit(node.machine.remove(agent.id, force=True, at=at))
                case "pause":
                    await node.pause(agent.id)
                case "unpause":
                    await node.unpause(agent.id)

    async def main() -> None:
        number = 0
        for _ in range(6):
            async with host.node() as node:
                for _ in range(12):
                    number += 1
                    with contextlib.suppress(AosError, TimeoutError):
                        async with asyncio.timeout(chance.choice([0.002, 5, 5])):
                            await act(node, number)
                    await asyncio.sleep(chance.choice([0, 0, 0.005]))
            host.runtime.faults.clear()
            if chance.random() < 0.2:
                host.reboot()
                stopped.clear()
        async with host.node() as node:
            await settle(node)

    async def settle(node: Node) -> None:
        """Until nothing is under way but restarts that wait their time."""
        async with asyncio.timeout(20):
            while not calm(node):
                await asyncio.sleep(0.02)
        for agent in node.machine.state.agents.values():
            for pid in agent.pids:
                process = node.machine.state.processes[pid]
                held = host.world.get(process.sandbox)
                if process.state is ProcessState.RUNNING:
                    assert held is not None and held.state in (SandboxState.RUNNING, SandboxState.PAUSED)
                    assert (held.state is SandboxState.PAUSED) is agent.paused
                    assert agent.id not in stopped
                else:
                    assert process.exit is not None
                    truth = {"exit": (0, 3), "brief": (CRASH_CODE,), "sleep": ()}[started[agent.id]]
                    if process.exit.code is not None and "could not be started" not in process.exit.detail:
                        assert process.exit.code in truth
        known = {
            node.machine.state.processes[pid].sandbox
            for a in node.machine.state.agents.values()
            for pid in a.pids
        }
        assert set(host.world) <= known

    def calm(node: Node) -> bool:
        state = node.machine.state
        sandboxes = {process.sandbox for process in state.processes.values()}
        return (
            all(process.state is not ProcessState.SPAWNING for process in state.processes.values())
            and all(agent.state is not AgentState.STOPPING for agent in state.agents.values())
            and all(
                (held := host.world.get(process.sandbox)) is not None
                and held.state is not SandboxState.STOPPED
                for process in state.processes.values()
                if process.lives
            )
            and set(host.world) <= sandboxes
        )

    asyncio.run(main())
