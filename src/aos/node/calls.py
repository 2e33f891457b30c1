"""What each call of the socket does: parameters in, words of docs/kernel.md out."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from aos import __version__
from aos.errors import AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.ids import SandboxId
from aos.kernel import syscalls
from aos.kernel.process.records import ProcessState
from aos.node.server import Answer
from aos.runtime.choice import AUTO, Choice
from aos.runtime.spec import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.config import Config
    from aos.kernel.journal import Entry
    from aos.kernel.process.records import Agent
    from aos.node.housekeeping import Housekeeping
    from aos.node.node import Node
    from aos.node.programs import PackagePrograms
    from aos.node.server import Caller
    from aos.runtime.protocol import Stdio
    from aos.runtime.state import ExitStatus

__all__ = ["Calls"]

_WAITS = frozenset({"agent.wait", "events.watch"})
_EVENTS_AT_ONCE = 500
_SIGNALS = {one.name.removeprefix("SIG"): one for one in signal.Signals}


class Calls:
    """The Handler of the server."""

    def __init__(
        self,
        node: Node,
        programs: PackagePrograms,
        housekeeping: Housekeeping,
        config: Config,
        stop: Callable[[], None],
    ) -> None:
        self._node = node
        self._programs = programs
        self._housekeeping = housekeeping
        self._config = config
        self._stop = stop
        self._started_at = node.clock.now()
        self._execs: dict[str, SandboxId] = {}
        self._methods = {name: getattr(self, name.replace(".", "_")) for name in syscalls.CALLS}

    def only_waits(self, method: str) -> bool:
        return method in _WAITS

    async def handle(self, method: str, params: Any, caller: Caller) -> Answer:
        if method == "events.watch":
            return await self.events_watch(params, caller)
        result = await self._methods[method](params)
        return result if isinstance(result, Answer) else Answer(result)

    # The node itself.

    async def node_hello(self, call: syscalls.Hello) -> dict[str, Any]:
        if call.protocol != syscalls.PROTOCOL:
            raise FailedPrecondition(
                f"the node speaks protocol {syscalls.PROTOCOL} (aos {__version__}), the caller {call.protocol}"
                f" (aos {call.version or 'unknown'})",
                code="version-mismatch",
                hint="`aos node restart` starts the installed version; agents go on running",
            )
        return {
            "protocol": syscalls.PROTOCOL,
            "version": __version__,
            "pid": os.getpid(),
            "root": str(self._config.root),
            "started_at": self._started_at,
        }

    async def node_status(self, _: syscalls.Nothing) -> dict[str, Any]:
        state, journal = self._node.machine.state, self._node.journal.info()
        running = sum(process.state is ProcessState.RUNNING for process in state.processes.values())
        return {
            "version": __version__,
            "pid": os.getpid(),
            "root": str(self._config.root),
            "state": str(self._config.state),
            "started_at": self._started_at,
            "agents": len(state.agents),
            "running": running,
            "rss_bytes": _rss(),
            "journal": {"events": journal.events, "bytes": journal.bytes},
        }

    async def node_stop(self, _: syscalls.Nothing) -> dict[str, Any]:
        asyncio.get_running_loop().call_later(0.05, self._stop)
        return {}

    async def node_df(self, _: syscalls.Nothing) -> dict[str, Any]:
        return await self._housekeeping.sizes()

    async def node_prune(self, call: syscalls.Everything) -> dict[str, Any]:
        return await self._housekeeping.prune(everything=call.all)

    async def runtime_info(self, _: syscalls.Nothing) -> list[dict[str, Any]]:
        candidates = await self._node.runtime.candidates()
        try:
            chosen = await self._node.runtime.choose(AUTO)
        except AosError as error:
            chosen = Choice("", error.message)
        return [
            {
                "name": one.name,
                "usable": one.info is not None,
                "problem": one.error.message if one.error else "",
                "hint": (one.error.hint or "") if one.error else "",
                "version": one.info.version if one.info else "",
                "isolation": one.info.isolation if one.info else "",
                "capabilities": sorted(one.info.capabilities) if one.info else [],
                "detail": dict(one.info.detail) if one.info else {},
                "default": one.name == self._config.runtime,
                "auto": chosen.why if one.name == chosen.name else "",
            }
            for one in candidates
        ]

    # Agents.

    async def agent_run(self, call: syscalls.RunAgent) -> Answer:
        program, restart = await self._programs.program(call)
        self._node.runtime.check(program.runtime)
        if call.dry_run:
            spec = await self._programs.spec(program, call.hostname or call.name)
            return Answer({"spec": msgspec.to_builtins(spec, enc_hook=str)})
        size = (call.rows, call.columns) if call.rows and call.columns else None
        agent, process, stdio = await self._node.run(
            program,
            name=call.name,
            restart=restart,
            remove=call.remove,
            hostname=call.hostname,
            attach=call.attach,
            size=size,
        )
        result = {
            "agent": agent.id,
            "name": agent.name,
            "pid": process.pid,
            "sandbox": process.sandbox,
            "restart": restart,
        }
        return Answer(result, _descriptors(stdio))

    async def agent_list(self, call: syscalls.Everything) -> list[dict[str, Any]]:
        agents = sorted(self._node.machine.state.agents.values(), key=lambda agent: -agent.created_at)
        shown = [self._record(agent) for agent in agents]
        return shown if call.all else [record for record in shown if record["status"] != "exited"]

    async def agent_inspect(self, call: syscalls.OfAgent) -> dict[str, Any]:
        agent = self._node.machine.find(call.agent)
        process = self._node.machine.state.processes[agent.pid]
        return {
            **self._record(agent),
            "remove": agent.remove,
            "terminal": agent.program.terminal,
            "stop_signal": agent.program.stop_signal,
            "overrides": agent.program.overrides,
            "sandbox": process.sandbox,
            "log": str(self._node.log_of(agent.id)),
            "processes": self._processes(agent),
        }

    def _processes(self, agent: Agent) -> list[dict[str, Any]]:
        """Every process it ever had, from the journal."""
        from aos.kernel.process.events import ProcessExited, ProcessSpawned, ProcessStarted

        found: dict[int, dict[str, Any]] = {}
        for event in self._node.journal.events_of(agent.id):
            if isinstance(event, ProcessSpawned):
                found[event.pid] = {"pid": event.pid, "sandbox": event.sandbox, "spawned_at": event.at}
            elif isinstance(event, ProcessStarted):
                found[event.pid]["started_at"] = event.at
            elif isinstance(event, ProcessExited):
                found[event.pid]["exit"] = msgspec.to_builtins(event.exit)
        return list(found.values())

    async def agent_stop(self, call: syscalls.StopAgent) -> dict[str, Any]:
        if call.timeout < 0:
            raise InvalidArgument("a timeout cannot be negative", code="params-invalid")
        agent = self._node.machine.find(call.agent)
        waiting = asyncio.ensure_future(self._node.wait(agent.id))
        try:
            await self._node.commit(
                self._node.machine.stop(agent.id, grace=call.timeout, at=self._node.clock.now())
            )
            return {"exit": msgspec.to_builtins(await waiting)}
        finally:
            waiting.cancel()

    async def agent_kill(self, call: syscalls.KillAgent) -> dict[str, Any]:
        name = call.signal.upper().removeprefix("SIG")
        if name.isdecimal() and int(name) in set(_SIGNALS.values()):
            name = signal.Signals(int(name)).name.removeprefix("SIG")
        if name not in _SIGNALS:
            raise InvalidArgument(
                f"no signal {call.signal!r:.40}",
                code="signal-unknown",
                hint="such as TERM, KILL, HUP, USR1, or 15",
            )
        agent = self._node.machine.find(call.agent)
        await self._node.commit(self._node.machine.kill(agent.id, name, at=self._node.clock.now()))
        return {}

    async def agent_remove(self, call: syscalls.RemoveAgent) -> dict[str, Any]:
        agent = self._node.machine.find(call.agent)
        await self._node.commit(
            self._node.machine.remove(agent.id, force=call.force, at=self._node.clock.now())
        )
        await self._node.gone(agent.id)
        return {}

    async def agent_wait(self, call: syscalls.OfAgent) -> dict[str, Any]:
        return {"exit": msgspec.to_builtins(await self._node.wait(call.agent))}

    async def agent_attach(self, call: syscalls.OfAgent) -> Answer:
        agent, process = self._node.running(call.agent)
        stdio = await self._node.runtime.attach(SandboxId(process.sandbox))
        return Answer({"terminal": agent.program.terminal}, _descriptors(stdio))

    async def agent_logs(self, call: syscalls.OfAgent) -> Answer:
        agent = self._node.machine.find(call.agent)
        process = self._node.machine.state.processes[agent.pid]
        try:
            descriptor = os.open(self._node.log_of(agent.id), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(
                f"agent {agent.name} has no log",
                code="log-not-found",
                hint=f"`aos inspect {agent.name}` has the last lines of its processes",
                agent=agent.id,
            ) from error
        return Answer({"running": process.state is ProcessState.RUNNING}, [descriptor])

    async def agent_stats(self, call: syscalls.StatsOf) -> list[dict[str, Any]]:
        state = self._node.machine.state
        if call.agents is None:
            chosen = [agent for agent in state.agents.values() if agent.state.can_exec()]
        else:
            chosen = [self._node.machine.find(text) for text in call.agents]
        found = []
        for agent in chosen:
            try:
                usage = await self._node.runtime.stats(SandboxId(state.processes[agent.pid].sandbox))
            except NotFound:
                continue
            found.append({"agent": agent.id, "name": agent.name, "usage": msgspec.to_builtins(usage)})
        return found

    # Further processes in a sandbox.

    async def agent_exec(self, call: syscalls.ExecInAgent) -> Answer:
        if not call.args:
            raise InvalidArgument("there is no command to run", code="params-invalid")
        agent, process = self._node.running(call.agent)
        sandbox = SandboxId(process.sandbox)
        spec = await self._programs.spec(agent.program, agent.name)
        made = await self._node.runtime.exec(
            sandbox,
            ProcessSpec(
                args=call.args,
                env=(*spec.process.env, *call.env.items()),
                cwd=call.work_dir or spec.process.cwd,
                user=call.user or spec.process.user,
                terminal=call.terminal,
                stdin=call.stdin,
            ),
            attach=True,
        )
        if call.rows and call.columns and made.stdio is not None and made.stdio.control is not None:
            os.write(made.stdio.control, b"1 %d %d\n" % (call.rows, call.columns))
        self._execs[made.id] = sandbox
        return Answer({"exec": made.id, "terminal": call.terminal}, _descriptors(made.stdio))

    async def exec_start(self, call: syscalls.StartExec) -> dict[str, Any]:
        sandbox = self._execs.pop(call.exec, None)
        if sandbox is None:
            raise NotFound(
                f"no exec {call.exec!r:.40} is waiting", code="exec-not-found", hint="start the command again"
            )
        status = await self._node.runtime.start_exec(sandbox, call.exec)
        return {"exit": _exit_of(status)}

    # Events.

    async def events_watch(self, call: syscalls.WatchEvents, caller: Caller) -> Answer:
        journal = self._node.journal
        cursor = journal.cursor() if call.since is None and call.follow else call.since or 0
        while True:
            for entry in journal.read(cursor, _EVENTS_AT_ONCE):
                await caller.notify("event", _event(entry))
                cursor = entry.cursor
            if cursor < journal.cursor():
                continue
            if not call.follow:
                return Answer({"cursor": cursor})
            async with self._node.changed:
                if cursor >= journal.cursor():
                    await self._node.changed.wait()

    # Words.

    def _record(self, agent: Agent) -> dict[str, Any]:
        process = self._node.machine.state.processes[agent.pid]
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
            "pid": agent.pid,
            "created_at": agent.created_at,
            "started_at": process.started_at,
            "finished_at": agent.finished_at,
            "exit": msgspec.to_builtins(process.exit),
            "restart": agent.restart,
            "restarts": agent.restarts,
            "runtime": self._node.runtime.name_of(SandboxId(process.sandbox))
            or program.runtime
            or self._config.runtime,
            "command": list(program.command),
        }


def _exit_of(status: ExitStatus) -> dict[str, Any]:
    return {
        "cause": status.cause,
        "code": status.code,
        "signal": status.signal,
        "shell_code": status.shell_code,
        "finished_at": status.finished_at,
        "detail": status.detail,
    }


def _event(entry: Entry) -> dict[str, Any]:
    raw = msgspec.to_builtins(entry.event)
    return {
        "cursor": entry.cursor,
        "at": raw.pop("at"),
        "type": raw.pop("type"),
        "agent": raw.pop("agent"),
        "pid": raw.pop("pid", None),
        "data": raw,
    }


def _descriptors(stdio: Stdio | None) -> list[int]:
    if stdio is None:
        return []
    return [stdio.socket] if stdio.control is None else [stdio.socket, stdio.control]


def _rss() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
