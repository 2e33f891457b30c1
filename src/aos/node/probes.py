"""Health and readiness of processes: asks as their probes say, and tells the machine when what is known changes."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aos.ids import SandboxId
from aos.kernel.process.health import Streak
from aos.kernel.process.records import AgentState
from aos.node.inside import Outcome, one_line, run_inside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aos.clock import Clock
    from aos.kernel.process.health import Probe
    from aos.kernel.process.machine import Decision, Machine
    from aos.kernel.process.records import Agent, Process
    from aos.runtime.protocol import Runtime
    from aos.runtime.spec import AgentSpec

__all__ = ["Answer", "Probes"]

_KEPT = 5
"""Answers that `inspect` shows. As docker's."""
_SHOWN = 500
"""Characters of one."""


@dataclass(frozen=True, slots=True)
class Answer:
    at: float
    """Seconds since the epoch."""
    seconds: float
    good: bool
    output: str


class Probes:
    def __init__(
        self,
        runtime: Runtime,
        machine: Callable[[], Machine],
        spec: Callable[[Agent], Awaitable[AgentSpec]],
        clock: Clock,
        commit: Callable[[Callable[[], Decision]], Awaitable[None]],
    ) -> None:
        """`spec`: of an agent's sandbox; `commit` makes a decision durable, however long that takes."""
        self._runtime = runtime
        self._machine = machine
        self._spec = spec
        self._clock = clock
        self._commit = commit
        self._tasks: dict[int, list[asyncio.Task[None]]] = {}
        self._answers: dict[tuple[int, str], deque[Answer]] = {}

    def watch(self, pid: int) -> None:
        """Begin to ask a process that runs."""
        process = self._machine().state.processes[pid]
        program = self._machine().state.agents[process.agent].program
        for kind, probe in (("health", program.health), ("readiness", program.readiness)):
            if probe is not None:
                known = self._known(process, kind)
                work = self._ask_on(process, kind, probe, Streak(probe, known))
                self._tasks.setdefault(pid, []).append(asyncio.create_task(work, name=f"{kind} of {pid}"))

    def forget(self, pid: int) -> None:
        """The process has ended."""
        for task in self._tasks.pop(pid, ()):
            task.cancel()
        for kind in ("health", "readiness"):
            self._answers.pop((pid, kind), None)

    async def end(self) -> None:
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def answers(self, pid: int, kind: str) -> list[Answer]:
        """The last ones of `health` or `readiness`, oldest first; those before the node's start are not kept."""
        return list(self._answers.get((pid, kind), ()))

    def _known(self, process: Process, kind: str) -> bool | None:
        """What was known when the node ended; at the start nothing is."""
        if kind == "health":
            return {"healthy": True, "unhealthy": False}.get(process.health)
        return process.ready or None

    async def _ask_on(self, process: Process, kind: str, probe: Probe, streak: Streak) -> None:
        pid, started = process.pid, process.started_at or self._clock.now()
        answers = self._answers[pid, kind] = deque(maxlen=_KEPT)
        while True:
            await asyncio.sleep(streak.pause())
            agent = self._machine().state.agents.get(process.agent)
            if agent is None or agent.state is AgentState.PAUSED:
                continue
            before = self._clock.monotonic()
            outcome = await self._ask(process, agent, probe)
            now = self._clock.now()
            text = one_line("; ".join(filter(None, (outcome.why, outcome.output))), _SHOWN)
            answers.append(Answer(now, self._clock.monotonic() - before, outcome.good, text))
            good = streak.answered(outcome.good, now - started)
            if good is not None:
                await self._commit(functools.partial(self._decide, pid, kind, probe, good, text))

    def _decide(self, pid: int, kind: str, probe: Probe, good: bool, text: str) -> Decision:
        machine, now = self._machine(), self._clock.now()
        if kind == "readiness":
            return machine.readiness(pid, good, text, at=now)
        status = "healthy" if good else "unhealthy"
        return machine.health(pid, status, text, restart=probe.on_failure == "restart", at=now)

    async def _ask(self, process: Process, agent: Agent, probe: Probe) -> Outcome:
        if probe.exec:
            spec = (await self._spec(agent)).process
            command = replace(spec, args=probe.exec, terminal=False, stdin=False)
            return await run_inside(self._runtime, SandboxId(process.sandbox), command, probe.timeout)
        from aos.node.asking import ask_http, ask_tcp

        connect = functools.partial(self._runtime.connect, SandboxId(process.sandbox))
        if probe.http is not None:
            return await ask_http(connect, probe.http, probe.timeout)
        return await ask_tcp(connect, probe.tcp, probe.timeout)
