"""How sandboxes end: watching conmon, and putting together what is left to know once it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from aos.errors import AosError
from aos.runtime.backends.oci.conmon import EXIT, decode_exit, read_exit_file
from aos.runtime.backends.oci.exit_files import ExitFiles
from aos.runtime.backends.oci.launch import reap, wait_readable
from aos.runtime.backends.oci.record import Record, read_status, write_status
from aos.runtime.state import ExitStatus

if TYPE_CHECKING:
    from aos.ids import SandboxId
    from aos.runtime.backends.oci.host import Host

__all__ = ["Ends"]

_ENROLL_SECONDS = 0.2
"""How long after its creation conmon joins its sandbox's cgroup. Moving a process waits for a grace period of the
kernel in each hierarchy, 12 ms in all on version 1, and holds up every fork meanwhile: not on the start path."""


class Ends:
    """Remembers whom it watches, and nothing else; any number of instances may watch one sandbox."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ends: dict[SandboxId, asyncio.Task[ExitStatus]] = {}
        self._exit_files = ExitFiles()
        self._gone: set[asyncio.Task[None]] = set()

    async def wait(self, id: SandboxId) -> ExitStatus:
        directory = self._host.directory(id)
        if (status := read_status(directory)) is not None:
            return status
        record = Record.read(directory)
        if record is None:
            return ExitStatus("lost", detail="its creation was interrupted")
        return await asyncio.shield(self.watch(id, record))

    def watch(self, id: SandboxId, record: Record) -> asyncio.Task[ExitStatus]:
        task = self._ends.get(id)
        if task is None:
            task = self._ends[id] = asyncio.create_task(self._collect(id, record), name=f"end of {id}")
        return task

    async def _collect(self, id: SandboxId, record: Record) -> ExitStatus:
        """Wait for conmon's end, then put together and keep how the sandbox ended."""
        directory, group = self._host.sandboxes / id, self._host.group(id)
        loop = asyncio.get_running_loop()
        enrolling = loop.call_later(_ENROLL_SECONDS, loop.run_in_executor, None, self._enroll, group, record)
        written_now = self._exit_files.expect(directory / EXIT)
        gone = asyncio.create_task(_until_gone(record), name=f"conmon of {id}")
        self._gone.add(gone)  # it goes on, to reap, when the exit file is there first
        gone.add_done_callback(self._gone.discard)
        try:
            written = read_exit_file(directory)
            if written is None:
                await asyncio.wait({gone, written_now}, return_when=asyncio.FIRST_COMPLETED)
                written = read_exit_file(directory)
            if written is None:
                await gone  # only then is it known that nothing more will be written
                written = read_exit_file(directory)
        finally:
            enrolling.cancel()
            written_now.cancel()
        if (status := read_status(directory)) is not None:
            return status
        if written is None:
            # Nobody holds the streams and the exit code any more; what still runs cannot be accounted for.
            with contextlib.suppress(AosError):
                await self._host.kill_payload(id)
            status = ExitStatus(
                "lost",
                finished_at=time.time(),
                usage=self._host.cgroups.usage(group),
                detail="conmon, which held its exit code, was killed",
            )
        else:
            code, signum = decode_exit(written[0])
            usage = self._host.cgroups.usage(group)
            oom = signum == signal.SIGKILL and self._host.cgroups.oom_kills(group) > 0
            status = ExitStatus(
                "oom" if oom else "exited" if signum is None else "signaled",
                code,
                signum,
                written[1],
                replace(usage, memory_bytes=None, pids=None),
                "killed by the kernel for want of memory" if oom else "",
            )
        with contextlib.suppress(FileNotFoundError):
            write_status(directory, status)
        return status

    def _enroll(self, group: str, record: Record) -> None:
        """Put conmon into the sandbox's cgroup; see _ENROLL_SECONDS."""
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if record.conmon_lives():
                self._host.cgroups.add(group, record.conmon)

    def forget(self, id: SandboxId) -> None:
        self._ends.pop(id, None)


async def _until_gone(record: Record) -> None:
    try:
        pidfd = os.pidfd_open(record.conmon)
    except ProcessLookupError:
        reap(record.conmon)
        return
    try:
        if record.conmon_lives():
            await wait_readable(pidfd, None, "conmon")
    finally:
        os.close(pidfd)
    reap(record.conmon)
