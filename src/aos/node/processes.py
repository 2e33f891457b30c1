"""Processes: what the machine's effects mean for sandboxes, from the first hook to the last trace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from aos.errors import AosError, NotFound
from aos.ids import SandboxId
from aos.kernel.process.effects import Discard, Erase, Freeze, Launch, Signal, Terminate, Thaw, Wake
from aos.kernel.process.records import ExitRecord, ProcessState
from aos.node.failpoints import failpoint
from aos.node.hooks import Hooks, Moment
from aos.node.log_tail import read_tail
from aos.runtime.state import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aos.kernel.process.effects import Effect
    from aos.kernel.process.records import Agent, Process, Program
    from aos.node.node import Node
    from aos.oci.digest import Digest
    from aos.runtime.protocol import Stdio
    from aos.runtime.spec import AgentSpec

__all__ = ["Pooled", "Processes", "Programs"]

log = logging.getLogger("aosd")

_PREPARING = ("post_create", "pre_start")
"""Hooks that run in a sandbox before its entrypoint does."""
_RETRY_SECONDS = 5.0


class Programs(Protocol):
    """From what an agent runs to the specification of its sandbox."""

    async def spec(self, program: Program, hostname: str) -> AgentSpec: ...

    def secret_values(self, program: Program) -> list[bytes]:
        """What must not be shown of what it writes."""
        ...

    def forget(self, program: Program) -> None:
        """The agent that had this program is gone."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """A sandbox that was made before there was an agent for it, and waits for its start."""

    agent: str
    """The id of the agent that will have it."""
    sandbox: SandboxId
    digest: Digest
    """Of its package's manifest."""
    hostname: str
    """That it has so far."""


class Processes:
    """Acts for a node, on what its machine says at that time; tells it what became of it."""

    def __init__(self, node: Node, programs: Programs, logs: Path, *, allow_host_hooks: bool) -> None:
        """`logs`: the directory of the agents' logs."""
        self._node = node
        self._programs = programs
        self._logs = logs
        self._hooks = Hooks(node.runtime, node.clock, allow_host=allow_host_hooks)
        self._launching: dict[int, asyncio.Event] = {}
        """Set when the process runs, or has failed to."""
        self._draining: set[int] = set()
        """Processes whose `preStop` hooks have begun: they run once."""
        self.quiet = asyncio.Event()
        """Set while nothing is launched."""
        self.quiet.set()

    @contextlib.contextmanager
    def launching(self, *pids: int) -> Iterator[None]:
        """While they are launched: who ends them meanwhile waits for that."""
        for pid in pids:
            self._launching[pid] = asyncio.Event()
        self.quiet.clear()
        try:
            yield
        finally:
            for pid in pids:
                self._launching.pop(pid).set()
            if not self._launching:
                self.quiet.set()

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
                    await self.freeze(pid, isinstance(effect, Freeze))
                except AosError as error:
                    log.warning("process %d: %s", pid, error)
            case Wake(agent, at, replica):
                await asyncio.sleep(max(0.0, at - self._node.clock.now()))
                await self._node.insist(
                    lambda: self._node.machine.due(agent, replica, at=self._node.clock.now())
                )
            case Discard(sandbox):
                await self.discard(SandboxId(sandbox))
            case Erase():
                await self._erase(effect)

    async def launch(
        self,
        process: Process,
        agent: Agent,
        *,
        attach: bool = False,
        size: tuple[int, int] | None = None,
        pooled: Pooled | None = None,
    ) -> Stdio | None:
        spec = await self.spec(agent, process.replica)
        if spec.network.mode == "agent":  # by name so far
            other = self._node.running(spec.network.sandbox)[1]
            spec = replace(spec, network=replace(spec.network, sandbox=other.sandbox))
        sandbox = SandboxId(process.sandbox)
        await self._hooks.run("pre_create", self._moment(agent, process))
        if pooled is None or not await self._take_over(pooled, spec):
            await self._node.runtime.create(sandbox, spec)
        stdio = None
        try:
            failpoint("after-create")
            moment = self._moment(agent, process, spec)
            await self._hooks.run("post_create", moment)
            stdio = await self._node.runtime.attach(sandbox) if attach else None
            if size is not None and stdio is not None and stdio.control is not None:
                os.write(stdio.control, b"1 %d %d\n" % size)
            await self._hooks.run("pre_start", moment)
            await self._node.runtime.start(sandbox)
            failpoint("after-start")
            await self._node.commit(self._node.machine.launched(process.pid, at=self._node.clock.now()))
        except BaseException:
            if stdio is not None:
                close_stdio(stdio)
            await asyncio.shield(self._node.runtime.delete(sandbox, force=True))
            raise
        self.watch(process.pid)
        if "post_start" in agent.program.hooks:
            self._node.start(self._after_start(process.pid, moment), f"postStart of {sandbox}")
        return stdio

    async def _take_over(self, pooled: Pooled, spec: AgentSpec) -> bool:
        """Give the sandbox what is its agent's own: False when it is not there any more, and another is to be made in its
        place."""
        try:
            if spec.hostname != pooled.hostname:
                await self._node.runtime.rename(pooled.sandbox, spec.hostname)
        except AosError as error:
            log.warning("sandbox %s of a pool cannot be used: %s", pooled.sandbox, error)
            await self._node.runtime.delete(pooled.sandbox, force=True)
            return False
        return True

    async def _after_start(self, pid: int, moment: Moment) -> None:
        try:
            await self._hooks.run("post_start", moment)
        except AosError as error:
            why = error.message
            await self._node.insist(
                lambda: self._node.machine.condemn(pid, "policy", why, at=self._node.clock.now())
            )

    async def _relaunch(self, pid: int) -> None:
        """A supervised start: there is no caller to tell, so a failure is how the process ended."""
        process = self._node.machine.state.processes.get(pid)
        if process is None or process.state is not ProcessState.SPAWNING:
            return
        agent = self._node.machine.state.agents[process.agent]
        with self.launching(pid):
            try:
                # Of an attempt before a crash.
                await self._node.runtime.delete(SandboxId(process.sandbox), force=True)
                await self.launch(process, agent)
            except AosError as error:
                log.warning("agent %s: process %d could not be started: %s", agent.id, pid, error)
                status = ExitStatus(
                    "exited",
                    int(str(error.subject.get("exit_status", 125))),
                    finished_at=self._node.clock.now(),
                    detail=f"could not be started: {error.message}",
                )
                await self.ended(pid, status)

    async def freeze(self, pid: int, freeze: bool) -> None:
        process = self._node.machine.state.processes.get(pid)
        if process is None:
            return
        sandbox = SandboxId(process.sandbox)
        try:
            await (self._node.runtime.pause(sandbox) if freeze else self._node.runtime.resume(sandbox))
        except AosError as error:
            # Already so, or it has ended under our hands: its end is on the way.
            if error.code not in ("sandbox-state", "sandbox-not-found"):
                raise

    async def _watch(self, pid: int, sandbox: SandboxId) -> None:
        status = await self._node.runtime.wait(sandbox)
        failpoint("after-exit")
        await self.ended(pid, status)

    async def ended(self, pid: int, status: ExitStatus) -> None:
        self._node.probes.forget(pid)
        self._draining.discard(pid)
        process = self._node.machine.state.processes.get(pid)
        if process is None:
            return
        agent = self._node.machine.state.agents[process.agent]
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
                self._programs.secret_values(agent.program),
            ),
            detail=status.detail,
        )
        await self._node.insist(lambda: self._node.machine.exited(pid, record, at=self._node.clock.now()))
        if process.lives and "post_stop" in agent.program.hooks:
            with contextlib.suppress(AosError):  # it is in the log
                await self._hooks.run("post_stop", self._moment(agent, process))

    async def _signal(self, pid: int, name: str) -> None:
        process = self._node.machine.state.processes.get(pid)
        if process is not None:
            try:
                await self._node.runtime.signal(SandboxId(process.sandbox), signal.Signals[f"SIG{name}"])
            except AosError as error:
                log.warning("signal %s to process %d: %s", name, pid, error)

    async def _terminate(self, pid: int, grace: float) -> None:
        process = self._node.machine.state.processes.get(pid)
        if process is None or not process.lives:
            return
        sandbox = SandboxId(process.sandbox)
        if (launched := self._launching.get(pid)) is not None:
            await self._end_launch(sandbox, launched, grace)
            process = self._node.machine.state.processes.get(pid)
            if process is None or not process.lives:
                return
        agent = self._node.machine.state.agents[process.agent]
        if grace > 0:
            with contextlib.suppress(TimeoutError, NotFound):
                async with asyncio.timeout(grace):
                    await self._drain(process, agent)
                    await self._signal(pid, agent.program.stop_signal)
                    await self.freeze(pid, False)  # what is paused would not take the signal
                    await self._node.runtime.wait(sandbox)
        # Whatever is left goes at once; a process that forks meanwhile is met again.
        for _ in range(20):
            try:
                await self._node.runtime.signal(sandbox, signal.SIGKILL)
                await self._node.runtime.signal(sandbox, signal.SIGKILL, everyone=True)
                async with asyncio.timeout(1):
                    await self._node.runtime.wait(sandbox)
            except NotFound:
                return
            except TimeoutError:
                continue
            return

    async def _end_launch(self, sandbox: SandboxId, launched: asyncio.Event, grace: float) -> None:
        """Let it start, for as long as it has to finish; then a hook that prepares it is ended with the sandbox."""
        wait = grace
        while not launched.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await launched.wait()
                    return
            with contextlib.suppress(AosError):
                await self._node.runtime.signal(sandbox, signal.SIGKILL)
            wait = 0.2

    async def _drain(self, process: Process, agent: Agent) -> None:
        """Its `preStop` hooks, within its time to finish."""
        if "pre_stop" in agent.program.hooks and process.pid not in self._draining:
            self._draining.add(process.pid)
            await self.freeze(process.pid, False)
            with contextlib.suppress(AosError):  # it is in the log
                spec = await self.spec(agent, process.replica)
                await self._hooks.run("pre_stop", self._moment(agent, process, spec))

    async def _erase(self, effect: Erase) -> None:
        """All that is left of an agent that is not there any more."""
        moment = Moment(effect.agent, effect.name, effect.program, self.log_of(effect.agent))
        with contextlib.suppress(AosError):
            await self._hooks.run("pre_delete", moment)
        await asyncio.gather(*(self.discard(SandboxId(sandbox)) for sandbox in effect.sandboxes))
        for replica in range(len(effect.sandboxes)):
            self.log_of(effect.agent, replica).unlink(missing_ok=True)
        self._programs.forget(effect.program)
        with contextlib.suppress(AosError):
            await self._hooks.run("post_delete", moment)

    async def discard(self, sandbox: SandboxId) -> None:
        while True:
            try:
                await self._node.runtime.delete(sandbox, force=True)
            except AosError as error:
                log.warning("sandbox %s cannot be deleted yet: %s", sandbox, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def watch(self, pid: int) -> None:
        """A process runs: wait for its end, and ask for its health meanwhile."""
        process = self._node.machine.state.processes.get(pid)
        if process is not None:
            self._node.start(self._watch(pid, SandboxId(process.sandbox)), f"watch {process.sandbox}")
            if process.lives:
                self._node.probes.watch(pid)

    async def spec(self, agent: Agent, replica: int = 0) -> AgentSpec:
        """Of the sandbox of one of its processes."""
        program, host = agent.program, agent.name
        if len(agent.replicas) > 1:
            host = f"{agent.name}-{replica + 1}"
        spec = await self.spec_of(program, host)
        if len(agent.replicas) > 1:
            env = (*spec.process.env, ("AOS_REPLICA", str(replica + 1)))
            spec = replace(spec, process=replace(spec.process, env=env))
        return replace(spec, log=self.log_of(agent.id, replica))

    async def spec_of(self, program: Program, hostname: str) -> AgentSpec:
        """Of the sandbox of any process of a program, without what is its agent's own."""
        spec = await self._programs.spec(program, hostname)
        if any(hook.where == "sandbox" for event in _PREPARING for hook in program.hooks.get(event, ())):
            spec = replace(spec, needs=spec.needs | {"prepare"})
        return spec

    def _moment(self, agent: Agent, process: Process, spec: AgentSpec | None = None) -> Moment:
        return Moment(
            agent.id,
            agent.name,
            agent.program,
            self.log_of(agent.id, process.replica),
            sandbox=process.sandbox,
            process=None if spec is None else spec.process,
        )

    def log_of(self, agent: str, replica: int = 0) -> Path:
        """Where everything is that the processes of a replica have written, one after the other."""
        return self._logs / (f"{agent}.{replica}.log" if replica else f"{agent}.log")

    def logs(self) -> list[Path]:
        return list(self._logs.iterdir())


def close_stdio(stdio: Stdio) -> None:
    os.close(stdio.socket)
    if stdio.control is not None:
        os.close(stdio.control)
