"""A supervised backend: what each call of the Runtime protocol does with conmon and an OCI runtime.

Everything it knows is on disk (record.py, the runtime's state directory, cgroups) or in /proc; the object only
remembers descriptors of conmons that it watches. So any number of instances, one after the other or at once, see
the same sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from aos import errors
from aos.content.tree import LayerTree
from aos.errors import NotFound
from aos.ids import SandboxId
from aos.runtime.backends.supervised.accepted import accepted
from aos.runtime.backends.supervised.conmon import LOG, connect_stdio
from aos.runtime.backends.supervised.ending import Ends
from aos.runtime.backends.supervised.execs import Execs
from aos.runtime.backends.supervised.failures import failure, refused_limits
from aos.runtime.backends.supervised.host import Host, wrong_state
from aos.runtime.backends.supervised.launch import ToolFailed
from aos.runtime.backends.supervised.making import Making
from aos.runtime.backends.supervised.no_cgroups import not_delegated
from aos.runtime.backends.supervised.record import Record, read_status, remove_tree
from aos.runtime.backends.supervised.removal import Removal
from aos.runtime.backends.supervised.renaming import rename
from aos.runtime.backends.supervised.versions import installed_version
from aos.runtime.checks import check_limits
from aos.runtime.protocol import RuntimeInfo
from aos.runtime.state import Sandbox, SandboxState

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.content.store import ContentStore
    from aos.runtime.backends.supervised.host import SupervisedConfig
    from aos.runtime.backends.supervised.tool import Tool
    from aos.runtime.network.protocol import Network
    from aos.runtime.protocol import Exec, Stdio
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, ProcessInfo, Usage

__all__ = ["SupervisedRuntime"]

_OF_CGROUPS = {"limits", "pause"}


_RESTARTS = "run the agent with `--runtime gvisor`; without it an agent restarts from its entrypoint"
_LACKED = {
    "checkpoint": ("checkpoint processes", _RESTARTS),
    "restore": ("restore processes", _RESTARTS),
    "copy": (
        "show the files of a sandbox",
        "mount a directory (`-v`), or use a command of its own: `aos exec -i NAME tar -c PATH`",
    ),
    "rename": ("give a sandbox another host name", "name it when it is made: `--hostname`"),
    "update-pids": (
        "change the limit of processes while they run",
        "start the agent again with the new limit, or with `--runtime oci`",
    ),
}


class SupervisedRuntime:
    """One sandbox is one conmon, one OCI runtime container, one cgroup, one directory."""

    def __init__(
        self, config: SupervisedConfig, tool: Tool, content: ContentStore, network: Callable[[], Network]
    ) -> None:
        self._host = Host(config, tool, content, network)
        self._ends = Ends(self._host)
        self._removal = Removal(self._host, self._ends)
        self._making = Making(self._host, self._ends, self._removal)
        self._execs = Execs(self._host, self._ends)

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        with self._host.quick_moves:
            return await self._making.create(id, spec)

    async def start(self, id: SandboxId) -> None:
        await self._making.start(id)

    async def wait(self, id: SandboxId) -> ExitStatus:
        return await self._ends.wait(id)

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        with self._host.quick_moves:
            return await self._execs.exec(id, process, attach=attach)

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        return await self._execs.start(id, exec_id)

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        await self._removal.delete(id, force=force)
        self._execs.forget(id)

    async def info(self) -> RuntimeInfo:
        host = self._host
        runtime, conmon = host.tools()
        versions = await asyncio.gather(installed_version(runtime), installed_version(conmon))
        return RuntimeInfo(
            host.tool.backend,
            versions[0],
            host.tool.capabilities - (_OF_CGROUPS if host.cgroups.version == "none" else set()),
            {
                "runtime": runtime,
                "conmon": f"{conmon} ({versions[1]})",
                "cgroups": host.cgroups.version,
                **host.tool.facts(),
            },
            host.tool.isolation,
        )

    async def signal(self, id: SandboxId, signum: signal.Signals, *, everyone: bool = False) -> None:
        state = self._host.state(id)
        if not state.can_signal():
            return
        if state is SandboxState.CREATED and not everyone:
            if signum == signal.SIGKILL:
                await self._host.kill_payload(id)
            return
        await self._host.tool.signal(self._host, id, signum, everyone=everyone)

    async def pause(self, id: SandboxId) -> None:
        await self._change(id, "pause", SandboxState.can_pause)

    async def resume(self, id: SandboxId) -> None:
        await self._change(id, "resume", SandboxState.can_resume)
        await self._host.tool.resumed(self._host, id)

    async def update(self, id: SandboxId, limits: Limits) -> None:
        state = self._host.state(id)
        if not state.can_update():
            raise wrong_state(id, state, "update")
        check_limits(limits)
        if limits.pids is not None:
            self._needs("update-pids")
        try:
            self._host.cgroups.limit(self._host.group(id), self._host.tool.group_limits(limits))
        except OSError as error:
            raise refused_limits(error, id) from error

    async def rename(self, id: SandboxId, hostname: str) -> None:
        self._needs("rename")
        await rename(self._host, id, hostname)

    async def attach(self, id: SandboxId) -> Stdio:
        directory = self._host.directory(id)
        record = Record.read(directory)
        if record is not None and read_status(directory) is None:
            try:
                stdio = connect_stdio(directory, record.terminal)
                await accepted(stdio.socket)  # from now on it hears everything
                return stdio
            except NotFound:
                if self._host.state(id) is not SandboxState.STOPPED:
                    raise
        raise wrong_state(id, self._host.state(id), "attach")

    async def logs(self, id: SandboxId) -> Path:
        directory = self._host.directory(id)
        record = Record.read(directory)
        return Path(record.log) if record is not None else directory / LOG

    async def stats(self, id: SandboxId) -> Usage:
        status = read_status(self._host.directory(id))
        if status is not None:
            return status.usage
        return self._host.tool.usage(self._host.cgroups.usage(self._host.group(id)))

    async def processes(self, id: SandboxId) -> list[ProcessInfo]:
        state = self._host.state(id)
        if not state.can_signal():
            raise wrong_state(id, state, "look into")
        try:
            return await self._host.tool.processes(self._host, id)
        except ToolFailed as error:
            raise wrong_state(id, self._host.state(id), "look into") from error

    async def root(self, id: SandboxId) -> int:
        pid = self._on_the_host(id)
        try:
            return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise wrong_state(id, SandboxState.STOPPED, "look into") from error

    async def connect(self, id: SandboxId, port: int) -> int:
        state = self._host.state(id)
        if not state.can_signal():
            raise wrong_state(id, state, "connect to a port of")
        return await self._host.tool.connect(self._host, id, port)

    def _on_the_host(self, id: SandboxId) -> int:
        """The pid of its entrypoint, where this kernel runs it; NotImplemented where another does."""
        state = self._host.state(id)
        self._needs("copy")
        pid = self._host.pid(id)
        if pid is None or not state.can_signal():
            raise wrong_state(id, state, "look into")
        return pid

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        self._needs("checkpoint")
        state = self._host.state(id)
        if not state.can_checkpoint():
            raise wrong_state(id, state, "checkpoint")
        options = ("--leave-running",) if leave_running else ()
        code, said = await self._host.call(id, "checkpoint", "--image-path", str(image), *options)
        if code != 0:
            raise failure(said, "", LayerTree([]))

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        self._needs("restore")
        return await self._making.create(id, spec, image)

    async def list(self) -> list[Sandbox]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for directory in sorted(self._host.sandboxes.iterdir()):
                if directory.name.startswith("."):
                    await asyncio.to_thread(remove_tree, directory)  # a deletion that was interrupted
                    self._host.id_ranges.sweep(directory.parent)
                    continue
                with contextlib.suppress(NotFound):  # somebody deletes it just now
                    found.append(await self._look(SandboxId(directory.name)))
        return found

    async def _look(self, id: SandboxId) -> Sandbox:
        state = self._host.state(id)
        if state is SandboxState.RUNNING:
            await self._host.tool.resumed(self._host, id)
        status = read_status(self._host.sandboxes / id)
        if state is SandboxState.STOPPED and status is None:
            status = await self._ends.wait(id)
        record = Record.read(self._host.sandboxes / id)
        users = record.users if record is not None else ""
        return Sandbox(id, state, None if status else self._host.pid(id), status, users)

    async def _change(self, id: SandboxId, verb: str, allowed: Callable[[SandboxState], bool]) -> None:
        state = self._host.state(id)
        if not allowed(state):
            raise wrong_state(id, state, verb)
        if self._host.cgroups.version == "none":
            raise not_delegated(f"agents cannot be {verb}d")
        code, said = await self._host.call(id, verb)
        if code != 0:
            raise failure(said, "", LayerTree([]))

    def _needs(self, capability: str) -> None:
        tool = self._host.tool
        if capability not in tool.capabilities:
            what, instead = _LACKED[capability]
            raise errors.NotImplemented(
                f"the {tool.backend} backend cannot {what}",
                code="capability-missing",
                hint=instead,
                backend=tool.backend,
                capability=capability,
            )
