"""What each call of the socket does: parameters in, words of docs/kernel.md out."""

from __future__ import annotations

import asyncio
import os
import signal
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from aos import __version__
from aos.errors import AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.ids import SandboxId
from aos.kernel import syscalls
from aos.kernel.process.records import ProcessState
from aos.node.agent_records import everything, summary
from aos.node.hooks import check_host_hooks
from aos.node.node import no_replica
from aos.node.server import Answer
from aos.node.volumes import used_by
from aos.runtime.choice import AUTO, Choice
from aos.runtime.spec import ProcessSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.config import Config
    from aos.kernel.journal import Entry
    from aos.node.housekeeping import Housekeeping
    from aos.node.network import NodeNetwork
    from aos.node.node import Node
    from aos.node.pools import Pools
    from aos.node.programs import PackagePrograms
    from aos.node.server import Caller
    from aos.node.volumes import Volumes
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
        volumes: Volumes,
        network: NodeNetwork,
        pools: Pools,
        config: Config,
        stop: Callable[[], None],
    ) -> None:
        self._node = node
        self._programs = programs
        self._housekeeping = housekeeping
        self._volumes = volumes
        self._network = network
        self._pools = pools
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

    async def network_list(self, _: syscalls.Nothing) -> dict[str, Any]:
        return await self._network.list()

    async def agent_run(self, call: syscalls.RunAgent) -> Answer:
        program, restart, limit = await self._programs.program(call)
        self._node.runtime.check(program.runtime)
        check_host_hooks(program, allow_host=self._config.allow_host_hooks)
        if call.replicas != 1 and (call.stdin or call.terminal):
            raise InvalidArgument(
                "standard input and a terminal are one process's, several replicas have several",
                code="replicas-attached",
                hint="leave -i and -t away, or start one replica",
            )
        if call.dry_run:
            spec = await self._programs.spec(program, call.hostname or call.name)
            return Answer({"spec": msgspec.to_builtins(spec, enc_hook=str)})
        size = (call.rows, call.columns) if call.rows and call.columns else None
        async with self._pools.taken(program, call.replicas) as pooled:
            agent, process, stdio = await self._node.run(
                program,
                name=call.name,
                restart=restart,
                remove=call.remove,
                attach=call.attach,
                size=size,
                replicas=call.replicas,
                limit=limit,
                pooled=pooled,
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
        shown = [summary(self._node, agent, self._config.runtime) for agent in agents]
        return shown if call.all else [record for record in shown if record["status"] != "exited"]

    async def agent_inspect(self, call: syscalls.OfAgent) -> dict[str, Any]:
        return everything(self._node, self._node.machine.find(call.agent), self._config.runtime)

    async def agent_stop(self, call: syscalls.StopAgent) -> dict[str, Any]:
        if call.timeout is not None and call.timeout < 0:
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

    async def agent_pause(self, call: syscalls.OfAgent) -> dict[str, Any]:
        await self._node.pause(self._node.machine.find(call.agent).id)
        return {}

    async def agent_unpause(self, call: syscalls.OfAgent) -> dict[str, Any]:
        await self._node.unpause(self._node.machine.find(call.agent).id)
        return {}

    async def agent_update(self, call: syscalls.UpdateAgent) -> dict[str, Any]:
        asked = msgspec.to_builtins(call.limits)
        limits = {name: value for name, value in asked.items() if value is not None}
        agent = self._node.machine.find(call.agent)
        await self._node.update(agent.id, limits=limits or None, restart=call.restart)
        return {}

    async def agent_top(self, call: syscalls.OfAgent) -> list[dict[str, Any]]:
        agent, _ = self._node.running(call.agent)
        found = []
        for number, replica in enumerate(agent.replicas):
            process = self._node.machine.state.processes[replica.pid]
            if process.state is ProcessState.RUNNING:
                tasks = await self._node.runtime.processes(SandboxId(process.sandbox))
                found += [{"replica": number, **msgspec.to_builtins(task)} for task in tasks]
        return found

    async def agent_root(self, call: syscalls.OfReplica) -> Answer:
        _, process = self._node.running(call.agent, call.replica)
        descriptor = await self._node.runtime.root(SandboxId(process.sandbox))
        return Answer({"sandbox": process.sandbox}, [descriptor])

    async def agent_attach(self, call: syscalls.OfAgent) -> Answer:
        agent, process = self._node.running(call.agent)
        stdio = await self._node.runtime.attach(SandboxId(process.sandbox))
        return Answer({"terminal": agent.program.terminal}, _descriptors(stdio))

    async def agent_logs(self, call: syscalls.LogsOf) -> Answer:
        agent = self._node.machine.find(call.agent)
        if call.replica >= len(agent.replicas):
            raise no_replica(agent, call.replica)
        process = self._node.machine.state.processes[agent.replicas[call.replica].pid]
        try:
            log = self._node.processes.log_of(agent.id, call.replica)
            descriptor = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(
                f"agent {agent.name} has no log",
                code="log-not-found",
                hint=f"`aos inspect {agent.name}` has the last lines of its processes",
                agent=agent.id,
            ) from error
        running = process.state is ProcessState.RUNNING
        secrets = [b64encode(one).decode() for one in self._programs.secret_values(agent.program)]
        facts = {"running": running, "replicas": len(agent.replicas), "redact": secrets}
        return Answer(facts, [descriptor])

    async def agent_stats(self, call: syscalls.StatsOf) -> list[dict[str, Any]]:
        state = self._node.machine.state
        if call.agents is None:
            chosen = [agent for agent in state.agents.values() if agent.state.lives]
        else:
            chosen = [self._node.machine.find(text) for text in call.agents]
        found = []
        for agent in chosen:
            for number, replica in enumerate(agent.replicas):
                try:
                    sandbox = SandboxId(state.processes[replica.pid].sandbox)
                    usage = await self._node.runtime.stats(sandbox)
                except NotFound:
                    continue
                name = agent.name if len(agent.replicas) == 1 else f"{agent.name}/{number + 1}"
                found.append({"agent": agent.id, "name": name, "usage": msgspec.to_builtins(usage)})
        return found

    # Further processes in a sandbox.

    async def agent_exec(self, call: syscalls.ExecInAgent) -> Answer:
        if not call.args:
            raise InvalidArgument("there is no command to run", code="params-invalid")
        agent, process = self._node.running(call.agent, call.replica)
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

    # Pools.

    async def pool_set(self, call: syscalls.SetPool) -> dict[str, Any]:
        self._node.runtime.check(call.run.runtime)
        return await self._pools.keep(call.run, call.size, wait=call.wait)

    async def pool_list(self, _: syscalls.Nothing) -> list[dict[str, Any]]:
        return await self._pools.records()

    async def pool_remove(self, call: syscalls.OfPool) -> dict[str, Any]:
        return {"pools": await self._pools.remove(call.pool)}

    # Volumes.

    async def volume_list(self, _: syscalls.Nothing) -> list[dict[str, Any]]:
        return [await self.volume_inspect(syscalls.OfVolume(volume=name)) for name in self._volumes.list()]

    async def volume_inspect(self, call: syscalls.OfVolume) -> dict[str, Any]:
        found = await self._volumes.inspect(call.volume)
        return {**found, "agents": used_by(call.volume, self._node.machine.state.agents.values())}

    async def volume_remove(self, call: syscalls.OfVolume) -> dict[str, Any]:
        await self._volumes.remove(call.volume, self._node.machine.state.agents.values())
        return {}

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
