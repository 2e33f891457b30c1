"""The backends `containerd` and `kata`: what each call of the Runtime protocol does through containerd's API.

containerd and its shims hold the processes and their exit codes; a holder for each has its streams. Both outlive the
daemon, so any number of instances, one after the other or at once, see the same sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aos import errors
from aos.errors import AosError
from aos.ids import SandboxId
from aos.runtime.backends.containerd.ending import Ends
from aos.runtime.backends.containerd.execs import Execs
from aos.runtime.backends.containerd.handlers import Handler, KataHandler, lacks, resources
from aos.runtime.backends.containerd.handlers import handler as named
from aos.runtime.backends.containerd.host import Host
from aos.runtime.backends.containerd.making import Making, swap_is_counted
from aos.runtime.backends.containerd.record import Record
from aos.runtime.backends.containerd.removal import Removal, remove_directory
from aos.runtime.backends.supervised.conmon import LOG, connect_stdio
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.processes import read_processes
from aos.runtime.backends.supervised.record import read_status
from aos.runtime.checks import check_limits
from aos.runtime.loopback import connect_loopback
from aos.runtime.protocol import RuntimeInfo
from aos.runtime.state import Sandbox, SandboxState

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.content.store import ContentStore
    from aos.runtime.backends.containerd.settings import ContainerdConfig
    from aos.runtime.network.protocol import Network
    from aos.runtime.protocol import Exec, Stdio
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, ProcessInfo, Usage

__all__ = ["ContainerdRuntime"]

_RESOURCES = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"


class ContainerdRuntime:
    """One sandbox is one container, task and snapshot of containerd, one holder, one directory."""

    def __init__(
        self,
        config: ContainerdConfig,
        content: ContentStore,
        network: Callable[[], Network],
        handler: Handler | None = None,
    ) -> None:
        """`network`: makes what connects sandboxes; `handler`: none for the one that the configuration names."""
        self._host = Host(config, handler or named(config.handler), content, network)
        self._ends = Ends(self._host)
        self._removal = Removal(self._host, self._ends)
        self._making = Making(self._host, self._ends, self._removal)
        self._execs = Execs(self._host, self._ends)

    @classmethod
    def kata(
        cls, config: ContainerdConfig, content: ContentStore, network: Callable[[], Network]
    ) -> ContainerdRuntime:
        return cls(config, content, network, KataHandler())

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        return await self._making.create(id, spec)

    async def start(self, id: SandboxId) -> None:
        await self._making.start(id)

    async def wait(self, id: SandboxId) -> ExitStatus:
        return await self._ends.wait(id)

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        return await self._execs.exec(id, process, attach=attach)

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        return await self._execs.start(id, exec_id)

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        await self._removal.delete(id, force=force)

    async def info(self) -> RuntimeInfo:
        version = await self._host.connection.version()
        config = self._host.config
        return RuntimeInfo(
            self._host.handler.backend,
            f"containerd {version}",
            self._host.handler.capabilities,
            {
                **self._host.handler.facts(),
                "address": config.address,
                "namespace": config.namespace,
                "snapshotter": config.snapshotter,
            },
            self._host.handler.isolation,
        )

    async def signal(self, id: SandboxId, signum: signal.Signals, *, everyone: bool = False) -> None:
        state = await self._host.state(id)
        if not state.can_signal():
            return
        if state is SandboxState.CREATED and not everyone and signum != signal.SIGKILL:
            return
        await self._host.kill(id, signum, everyone=everyone)
        if state is SandboxState.PAUSED and signum == signal.SIGKILL:
            with contextlib.suppress(AosError):  # it may be gone by now
                await self.resume(id)

    async def pause(self, id: SandboxId) -> None:
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        await self._allow(id, "pause", SandboxState.can_pause)
        await self._host.tasks("Pause", tasks_pb2.PauseTaskRequest(container_id=id))

    async def resume(self, id: SandboxId) -> None:
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        await self._allow(id, "resume", SandboxState.can_resume)
        await self._host.tasks("Resume", tasks_pb2.ResumeTaskRequest(container_id=id))

    async def update(self, id: SandboxId, limits: Limits) -> None:
        import msgspec
        from google.protobuf.any_pb2 import Any as Packed

        from aos.runtime.backends.containerd._api.services import tasks_pb2

        await self._allow(id, "update", SandboxState.can_update)
        check_limits(limits)
        handler = self._host.handler
        if limits.pids is not None and "update-pids" not in handler.capabilities:
            hint = "stop the agent, and run it with the limit it is to have"
            raise lacks(handler.backend, "change how many processes a sandbox may have", hint)
        wanted = msgspec.json.encode(resources(limits, swap=swap_is_counted()))
        request = tasks_pb2.UpdateTaskRequest(
            container_id=id, resources=Packed(type_url=_RESOURCES, value=wanted)
        )
        try:
            await self._host.tasks("Update", request)
        except errors.Internal as error:
            raise errors.InvalidArgument(
                f"these limits are refused: {error.message}",
                code="limit-refused",
                hint="a memory limit cannot be below what is in use, and no limit far beyond what the host has",
                sandbox=id,
            ) from error

    async def rename(self, id: SandboxId, hostname: str) -> None:
        hint = "name it when it is made: `--hostname`"
        raise lacks(self._host.handler.backend, "give a sandbox another host name", hint)

    async def attach(self, id: SandboxId) -> Stdio:
        directory = self._host.directory(id)
        record = Record.read(directory)
        state = await self._host.state(id)
        if record is None or state is SandboxState.STOPPED:
            raise wrong_state(id, state, "attach")
        await self._ends.hold_again(id)
        return connect_stdio(directory, record.terminal)

    async def logs(self, id: SandboxId) -> Path:
        directory = self._host.directory(id)
        record = Record.read(directory)
        return Path(record.log) if record is not None else directory / LOG

    async def stats(self, id: SandboxId) -> Usage:
        status = read_status(self._host.directory(id))
        return await self._host.usage(id) if status is None else status.usage

    async def processes(self, id: SandboxId) -> list[ProcessInfo]:
        await self._on_the_host(id, "top", "tell the processes of")
        pids = await asyncio.to_thread(self._host.cgroups.pids, self._host.group(id))
        return read_processes(pids)

    async def root(self, id: SandboxId) -> int:
        pid = await self._on_the_host(id, "copy", "show the files of")
        try:
            return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise wrong_state(id, SandboxState.STOPPED, "look into") from error

    async def connect(self, id: SandboxId, port: int) -> int:
        return await connect_loopback(await self._on_the_host(id, "connect", "connect to ports of"), port)

    async def _on_the_host(self, id: SandboxId, capability: str, what: str) -> int:
        """The pid of its entrypoint, where this kernel runs it; NotImplemented where another does."""
        state, handler = await self._host.state(id), self._host.handler
        if capability not in handler.capabilities:
            raise lacks(handler.backend, f"{what} a sandbox", "use a command of its own: `aos exec`")
        task = await self._host.task(id)
        if task is None or not state.can_signal():
            raise wrong_state(id, state, "look into")
        return task.pid

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        raise self._lacks("checkpoint")

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        raise self._lacks("restore")

    async def list(self) -> list[Sandbox]:
        """Without sandboxes containerd is not asked: who does not use it need not have it."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for directory in sorted(self._host.sandboxes.iterdir()):
                if directory.name.startswith("."):
                    await asyncio.to_thread(remove_directory, directory)  # a deletion that was interrupted
                    self._host.id_ranges.sweep(directory.parent)
                    continue
                record = Record.read(directory)
                sandbox = await self._sandbox(SandboxId(directory.name), record)
                found.append(sandbox if record is None else replace(sandbox, users=record.users))
        return found

    async def _sandbox(self, id: SandboxId, record: Record | None) -> Sandbox:
        status = read_status(self._host.sandboxes / id)
        if status is not None:
            return Sandbox(id, SandboxState.STOPPED, None, status)
        try:
            task = await self._host.task(id)
        except AosError:
            # Who runs does so without containerd, too; it tells the truth when it is back.
            return Sandbox(id, SandboxState.RUNNING)
        if task is None and record is None:
            return Sandbox(id, SandboxState.CREATING)
        if task is None or task.state is SandboxState.STOPPED:
            return Sandbox(id, SandboxState.STOPPED, None, await self._ends.wait(id))
        await self._ends.hold_again(id)
        return Sandbox(id, task.state, task.pid)

    async def _allow(self, id: SandboxId, verb: str, allowed: Callable[[SandboxState], bool]) -> None:
        state = await self._host.state(id)
        if not allowed(state):
            raise wrong_state(id, state, verb)

    def _lacks(self, capability: str) -> errors.NotImplemented:
        hint = "run the agent with `--runtime gvisor`; without it an agent restarts from its entrypoint"
        return lacks(self._host.handler.backend, f"{capability} processes", hint)
