"""What the parts of the backend share: where things are, and what containerd says of a sandbox."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from aos.content.tree import LayerTree
from aos.errors import NotFound
from aos.runtime.backends.containerd.connection import Connection
from aos.runtime.backends.containerd.layers import Layers
from aos.runtime.backends.containerd.record import Record
from aos.runtime.backends.containerd.usage import usage_of
from aos.runtime.backends.supervised.host import not_found
from aos.runtime.backends.supervised.record import read_status
from aos.runtime.cdi import Edits, find_devices
from aos.runtime.cgroups import detect_cgroups
from aos.runtime.id_ranges import IdRanges
from aos.runtime.quick_moves import QuickMoves
from aos.runtime.seccomp import Profiles
from aos.runtime.state import SandboxState, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.content.store import ContentStore
    from aos.ids import SandboxId
    from aos.runtime.backends.containerd.handlers import Handler
    from aos.runtime.backends.containerd.settings import ContainerdConfig
    from aos.runtime.cgroups import Cgroups
    from aos.runtime.network.protocol import Network

__all__ = ["Host", "Task"]

_STATES = {
    "CREATED": SandboxState.CREATED,
    "RUNNING": SandboxState.RUNNING,
    "STOPPED": SandboxState.STOPPED,
    "PAUSED": SandboxState.PAUSED,
    "PAUSING": SandboxState.PAUSED,
}


class Task(msgspec.Struct, frozen=True):
    """What containerd calls the running instance of a container."""

    state: SandboxState
    pid: int


class Host:
    def __init__(
        self,
        config: ContainerdConfig,
        handler: Handler,
        content: ContentStore,
        network: Callable[[], Network],
    ) -> None:
        """`network`: what connects sandboxes that ask for it, made when one does."""
        self.config = config
        self.handler = handler
        self.content = content
        self.network = network
        self.connection = Connection(config)
        self.layers = Layers(config, self.connection, content)
        self.sandboxes = config.root / "sandboxes" / handler.backend
        self._cgroups: Cgroups | None = None
        self._id_ranges: IdRanges | None = None
        self.quick_moves = QuickMoves(lambda: self.cgroups.stay())
        self.closed = ""
        """Why no sandbox has user ids of its own, once that is known."""
        self.profiles = Profiles(config.seccomp)

    @property
    def backend(self) -> str:
        return self.handler.backend

    @property
    def users(self) -> str:
        return self.config.users

    @property
    def user_namespaces(self) -> bool:
        return self.handler.on_host

    @property
    def id_ranges(self) -> IdRanges:
        if self._id_ranges is None:
            self._id_ranges = IdRanges.of_host(self.config.ids)
        return self._id_ranges

    @property
    def cgroups(self) -> Cgroups:
        if self._cgroups is None:
            self._cgroups = detect_cgroups()
        return self._cgroups

    def devices(self, names: tuple[str, ...]) -> Edits:
        """Errors of aos.runtime.cdi."""
        if not names:
            return Edits()
        return find_devices(names, hooks=self.config.device_hooks, directories=self.config.cdi)

    def directory(self, id: SandboxId) -> Path:
        directory = self.sandboxes / id
        if not directory.is_dir():
            raise not_found(id)
        return directory

    def group(self, id: SandboxId) -> str:
        return f"{self.config.installation}/{id}"

    def snapshot(self, id: SandboxId) -> str:
        """The key of the sandbox's own snapshot; with `-0`, `-1`, … those of layers that it mounts."""
        return f"{self.config.installation}/{id}"

    async def task(self, id: SandboxId) -> Task | None:
        from aos.runtime.backends.containerd._api.services import tasks_pb2
        from aos.runtime.backends.containerd._api.types.task.task_pb2 import Status

        try:
            answer = await self.tasks("Get", tasks_pb2.GetRequest(container_id=id))
        except NotFound:
            return None
        state = _STATES.get(Status.Name(answer.process.status), SandboxState.RUNNING)
        return Task(state, answer.process.pid)

    async def running(self, id: SandboxId) -> int | None:
        task = await self.task(id)
        return None if task is None or task.state is SandboxState.STOPPED else task.pid

    async def usage(self, id: SandboxId) -> Usage:
        """As the shim tells it."""
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        answer: tasks_pb2.MetricsResponse = await self.tasks(
            "Metrics", tasks_pb2.MetricsRequest(filters=[f"id=={id}"])
        )
        return usage_of(answer.metrics[0].data) if answer.metrics else Usage()

    async def tasks(self, method: str, request: Any, *, seconds: float | None = 60.0) -> Any:
        """Call containerd's task service."""
        return await (await self.connection.service("Tasks")).call(method, request, seconds=seconds)

    async def state(self, id: SandboxId) -> SandboxState:
        """NotFound `sandbox-not-found`; stopped also when containerd has forgotten it."""
        directory = self.directory(id)
        if read_status(directory) is not None:
            return SandboxState.STOPPED
        task = await self.task(id)
        if task is not None:
            return task.state
        return SandboxState.CREATING if Record.read(directory) is None else SandboxState.STOPPED

    async def kill(self, id: SandboxId, signum: int, *, everyone: bool = False, exec_id: str = "") -> None:
        """Deliver a signal; what has ended already is passed over."""
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        if everyone and self.handler.on_host:  # runc's own way depends on its version
            for pid in self.cgroups.pids(self.group(id)):
                try:
                    os.kill(pid, signum)
                except ProcessLookupError:
                    continue
            if signum != signal.SIGKILL:
                return
            everyone = False
        request = tasks_pb2.KillRequest(container_id=id, exec_id=exec_id, signal=signum, all=everyone)
        try:
            await self.tasks("Kill", request)
        except NotFound:
            return

    def tree(self, id: SandboxId) -> LayerTree:
        record = Record.read(self.sandboxes / id)
        return LayerTree([*map(Path, record.tree)] if record else [])
