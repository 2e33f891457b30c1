"""How sandboxes end: containerd says the code, the cgroup or an event whether memory was why; nobody guesses."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import AosError, NotFound
from aos.runtime.backends.containerd.record import OOM, Record
from aos.runtime.backends.containerd.streams import Streams, hold, until_gone
from aos.runtime.backends.supervised.conmon import decode_exit
from aos.runtime.backends.supervised.connecting import release
from aos.runtime.backends.supervised.record import process_start, read_status, write_status
from aos.runtime.state import ExitStatus, SandboxState, Usage

if TYPE_CHECKING:
    from aos.ids import SandboxId
    from aos.runtime.backends.containerd.host import Host

__all__ = ["Ends"]

_DRAIN_SECONDS = 5.0
"""How long what a process has written may take to reach a client that does not read."""
_RETRY_SECONDS = 0.1


class Ends:
    """Remembers whom it watches, and nothing else; any number of instances may watch one sandbox."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ends: dict[SandboxId, asyncio.Task[ExitStatus]] = {}
        self._watched: set[asyncio.Task[ExitStatus]] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None

    async def wait(self, id: SandboxId) -> ExitStatus:
        directory = self._host.directory(id)
        if (status := read_status(directory)) is not None:
            return status
        if Record.read(directory) is None:
            return ExitStatus("lost", detail="its creation was interrupted")
        return await asyncio.shield(self.watch(id))

    def watch(self, id: SandboxId) -> asyncio.Task[ExitStatus]:
        task = self._ends.get(id)
        if task is None or task.cancelled() or (task.done() and task.exception() is not None):
            task = self._ends[id] = asyncio.create_task(self._collect(id), name=f"end of {id}")
            self._watched.add(task)
            task.add_done_callback(self._unwatch)
            if self._listening is None or self._listening.done():
                self._listening = asyncio.create_task(self._listen(), name="containerd's oom events")
        return task

    def _unwatch(self, task: asyncio.Task[ExitStatus]) -> None:
        self._watched.discard(task)
        if not self._watched and self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def forget(self, id: SandboxId) -> None:
        self._ends.pop(id, None)

    async def _collect(self, id: SandboxId) -> ExitStatus:
        """Wait for the end of the task, then put together and keep how it ended."""
        directory = self._host.sandboxes / id
        ended = await self._ended(id)
        if (status := read_status(directory)) is not None:
            return status
        if (record := Record.read(directory)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await until_gone(record.holder, record.holder_start)
        usage = await self._usage(id)
        if ended is None:
            detail = "containerd does not know it any more: its shim was killed, it was removed by hand, or the host restarted"
            status = ExitStatus("lost", finished_at=time.time(), usage=usage, detail=detail)
        else:
            code, signum = decode_exit(ended[0])
            oom = signum == signal.SIGKILL and self._out_of_memory(id)
            status = ExitStatus(
                "oom" if oom else "exited" if signum is None else "signaled",
                code,
                signum,
                ended[1],
                replace(usage, memory_bytes=None, pids=None),
                "killed by the kernel for want of memory" if oom else "",
            )
        with contextlib.suppress(FileNotFoundError):
            write_status(directory, status)
        releasing = asyncio.create_task(self._release(id), name=f"network of {id}")
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)
        return status

    async def _release(self, id: SandboxId) -> None:
        """Addresses and ports are another's now; what cannot be given back is found by whoever looks for one."""
        with contextlib.suppress(AosError):
            await release(self._host, id)

    async def _ended(self, id: SandboxId) -> tuple[int, float] | None:
        """(containerd's exit status, when); None when it does not know the task. Its own death is waited out: the shim,
        which is the parent, outlives it, and tells the next one."""
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        while True:
            try:
                answer = await self._host.tasks("Wait", tasks_pb2.WaitRequest(container_id=id), seconds=None)
            except NotFound:
                return None
            except AosError:
                # Its death, or that of the shim, which it notices and then has forgotten the task.
                await asyncio.sleep(_RETRY_SECONDS)
                with contextlib.suppress(AosError):
                    await self._host.connection.ready()
                continue
            return answer.exit_status, answer.exited_at.ToNanoseconds() / 1e9

    async def _usage(self, id: SandboxId) -> Usage:
        """Of one that has ended. A shim that has a kernel of its own to ask may not know any more."""
        if self._host.handler.on_host:
            return self._host.cgroups.usage(f"{self._host.group(id)}/payload")
        with contextlib.suppress(AosError):
            return await self._host.usage(id)
        return Usage()

    def _out_of_memory(self, id: SandboxId) -> bool:
        """The counter of the cgroup also tells what happened while nobody listened."""
        told = (self._host.sandboxes / id / OOM).exists()
        return told or (self._host.handler.on_host and self._host.cgroups.oom_kills(self._host.group(id)) > 0)

    async def _listen(self) -> None:
        """Note the out-of-memory events of containerd while a sandbox is watched."""
        from aos.runtime.backends.containerd._api.events.task_pb2 import TaskOOM
        from aos.runtime.backends.containerd._api.services import events_pb2

        topic = f'topic=="/tasks/oom",namespace=={self._host.config.namespace}'
        with contextlib.suppress(AosError):
            events = await self._host.connection.service("Events")
            try:
                stream = events.stub.Subscribe(
                    events_pb2.SubscribeRequest(filters=[topic]),
                    metadata=self._host.connection.metadata(),
                )
                async for envelope in stream:
                    event = TaskOOM.FromString(envelope.event.value)
                    with contextlib.suppress(FileNotFoundError):
                        (self._host.sandboxes / event.container_id / OOM).touch()
            except Exception as error:
                raise self._host.connection.translate(error) from error

    async def hold_again(self, id: SandboxId) -> None:
        """Give a running sandbox a new holder where somebody has killed its own; what it wrote waits in the FIFOs."""
        directory = self._host.sandboxes / id
        record = Record.read(directory)
        if record is None or process_start(record.holder) == record.holder_start:
            return
        task = await self._host.task(id)
        if task is None or task.state is SandboxState.STOPPED:
            return
        pid = await hold(
            self._host.config,
            id,
            Streams.of(directory),
            directory,
            log=Path(record.log),
            leave_stdin_open=record.leave_stdin_open,
        )
        replace(record, holder=pid, holder_start=process_start(pid) or "").write(directory)
