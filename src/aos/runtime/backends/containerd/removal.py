"""The end of all traces of a sandbox, in containerd and on this host, whatever state a crash has left it in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from aos.errors import AosError, Internal, NotFound
from aos.runtime.backends.containerd.layers import LABEL_INSTALLATION
from aos.runtime.backends.containerd.mounts import unmount_below
from aos.runtime.backends.containerd.record import Record
from aos.runtime.backends.containerd.streams import holders, until_gone
from aos.runtime.backends.supervised.being_made import until_made
from aos.runtime.backends.supervised.connecting import release
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.record import process_start, remove_tree
from aos.runtime.cgroups import kill_all
from aos.runtime.state import SandboxState

if TYPE_CHECKING:
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.backends.containerd.ending import Ends
    from aos.runtime.backends.containerd.host import Host

__all__ = ["Removal", "remove_directory"]

_KILL_SECONDS = 10.0
"""How long a killed sandbox may take to be gone."""


class Removal:
    def __init__(self, host: Host, ends: Ends) -> None:
        self._host = host
        self._ends = ends

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        directory = self._host.sandboxes / id
        if not directory.exists():
            return
        state = await self._host.state(id)
        if not force and not state.can_delete():
            raise wrong_state(id, state, "delete", hint="stop it first, or force the deletion")
        await until_made(directory, lambda: None)
        if not directory.exists():
            return
        state = await self._host.state(id)
        if state not in (SandboxState.STOPPED, SandboxState.CREATING):
            await self._kill(id, state)
        await self._forget(id)
        record = Record.read(directory)
        await self._end_holder(id, directory, record)
        await release(self._host, id)
        await self._remove_group(id)
        # Renamed first: a directory that is there is a sandbox, whole or half-made, and never a half-removed one.
        doomed = directory.with_name(f".{id}.{os.urandom(4).hex()}")  # one may be left of an earlier namesake
        with contextlib.suppress(FileNotFoundError):
            directory.rename(doomed)
        self._ends.forget(id)
        if record is None:
            self._host.id_ranges.sweep(directory.parent)
        elif not isinstance(record.users, str):
            self._host.id_ranges.release(record.users[0], directory)
        await asyncio.to_thread(remove_directory, doomed)
        states = self._host.config.state / "runtime" / self._host.handler.backend
        for empty in (states / self._host.config.namespace, states):  # of runc, which leaves them
            with contextlib.suppress(OSError):
                empty.rmdir()

    async def give_up(self, id: SandboxId) -> None:
        """Creation failed: remove every trace, whatever else happens meanwhile."""
        cleaning = asyncio.create_task(self._delete_quietly(id))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(cleaning)
        if not cleaning.done():
            await asyncio.wait([cleaning])

    async def _delete_quietly(self, id: SandboxId) -> None:
        """The failure that led here is what the caller must hear of; what stays is found by `list`."""
        with contextlib.suppress(AosError, OSError):
            await self.delete(id, force=True)

    async def _kill(self, id: SandboxId, state: SandboxState) -> None:
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        await self._host.kill(id, signal.SIGKILL)
        if state is SandboxState.PAUSED:
            with contextlib.suppress(AosError):
                await self._host.tasks("Resume", tasks_pb2.ResumeTaskRequest(container_id=id))
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await asyncio.shield(self._ends.watch(id))
        except TimeoutError as error:
            raise Internal(
                f"sandbox {id} did not end within {_KILL_SECONDS:g} s of SIGKILL",
                code="sandbox-stuck",
                hint="a process in uninterruptible sleep keeps it; delete it again later",
                sandbox=id,
            ) from error

    async def _forget(self, id: SandboxId) -> None:
        """Task, container and snapshots, in the order in which each needs the next."""
        from aos.runtime.backends.containerd._api.services import containers_pb2, snapshots_pb2, tasks_pb2

        containers = await self._host.connection.service("Containers")
        with contextlib.suppress(NotFound):
            found: containers_pb2.GetContainerResponse = await containers.call(
                "Get", containers_pb2.GetContainerRequest(id=id)
            )
            if found.container.labels.get(LABEL_INSTALLATION) == self._host.config.installation:
                await self._delete_task(id, tasks_pb2)
                with contextlib.suppress(NotFound):
                    await containers.call("Delete", containers_pb2.DeleteContainerRequest(id=id))
        snapshots = await self._host.connection.service("Snapshots")
        snapshotter, key = self._host.config.snapshotter, self._host.snapshot(id)
        for number in range(-1, len(list((self._host.sandboxes / id).glob("layers-*")))):
            name = key if number < 0 else f"{key}-{number}"
            with contextlib.suppress(NotFound):
                request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=name)
                await snapshots.call("Remove", request)

    async def _delete_task(self, id: SandboxId, tasks_pb2: Any) -> None:
        """One that a crash left behind may still run, or be about to."""
        with contextlib.suppress(NotFound):
            try:
                await self._host.tasks("Delete", tasks_pb2.DeleteTaskRequest(container_id=id))
            except NotFound:
                raise
            except AosError:
                await self._host.kill(id, signal.SIGKILL)
                async with asyncio.timeout(_KILL_SECONDS):
                    await self._host.tasks("Wait", tasks_pb2.WaitRequest(container_id=id), seconds=None)
                await self._host.tasks("Delete", tasks_pb2.DeleteTaskRequest(container_id=id))

    async def _end_holder(self, id: SandboxId, directory: Path, record: Record | None) -> None:
        """That of the entrypoint, and where a daemon was killed, those that it had just started."""
        if record is not None:
            if process_start(record.holder) == record.holder_start:
                _kill(record.holder)
            await until_gone(record.holder, record.holder_start)
        if record is None or (directory / "exec").exists():
            for pid in holders(id, self._host.config.address):
                _kill(pid)
                await until_gone(pid, process_start(pid) or "")

    async def _remove_group(self, id: SandboxId) -> None:
        """A group stays busy for a moment after its last process has ended. What a handler that has a kernel of its own
        runs in there is for its shim to end."""
        group = self._host.group(id)
        for attempt in range(60):
            if self._host.cgroups.remove(group):
                self._host.cgroups.remove_empty(self._host.config.installation)
                return
            if self._host.handler.on_host:
                kill_all(self._host.cgroups, group)
            await asyncio.sleep(0.001 * 1.2**attempt if attempt < 30 else 0.2)
        raise Internal(
            f"the cgroup of sandbox {id} does not become empty",
            code="sandbox-stuck",
            hint="a process in uninterruptible sleep keeps it; delete it again later",
            sandbox=id,
        )


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def remove_directory(directory: Path) -> None:
    """With what is still mounted in there detached, and never walked into: it is somebody's data."""
    unmount_below(directory)
    remove_tree(directory)
