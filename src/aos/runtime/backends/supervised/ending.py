"""How sandboxes end: watching conmon, and putting together what is left to know once it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from aos.errors import AosError
from aos.runtime.backends.supervised.conmon import EXIT, decode_exit, read_exit_file
from aos.runtime.backends.supervised.connecting import release
from aos.runtime.backends.supervised.exit_files import ExitFiles
from aos.runtime.backends.supervised.launch import reap, wait_readable
from aos.runtime.backends.supervised.record import Record, read_status, write_status
from aos.runtime.state import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.backends.supervised.host import Host
    from aos.runtime.state import Cause

__all__ = ["Ends"]

_T = TypeVar("_T")

_LIMITS = {signal.SIGXCPU: "RLIMIT_CPU", signal.SIGXFSZ: "RLIMIT_FSIZE"}
"""The limits of setrlimit(2) by whose signals the kernel ends who goes over them."""
_ENROLL_SECONDS = 0.2
"""How long after its creation conmon joins its sandbox's cgroup. Moving a process waits for a grace period of the
kernel in each hierarchy, 12 ms in all on version 1, and holds up every fork meanwhile: not on the start path."""


class Ends:
    """Remembers whom it watches, and nothing else; any number of instances may watch one sandbox."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ends: dict[SandboxId, asyncio.Task[ExitStatus]] = {}
        self._exit_files = ExitFiles()
        self._pending: set[asyncio.Task[Any]] = set()

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
        # It goes on, to reap, when the exit file is there first.
        gone = self._after(_until_gone(record), f"conmon of {id}")
        try:
            written = read_exit_file(directory)
            if written is None:
                either: set[asyncio.Future[Any]] = {gone, written_now}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
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
                detail=f"conmon, which held its exit code, {_how(gone.result())}",
            )
        else:
            code, signum = decode_exit(written[0])
            usage = self._host.cgroups.usage(group)
            cause: Cause = "exited" if signum is None else "signaled"
            detail = ""
            if signum == signal.SIGKILL and self._host.cgroups.oom_kills(group) > 0:
                cause, detail = "oom", "killed by the kernel for want of memory"
            elif signum in _LIMITS and _LIMITS[signal.Signals(signum)] in _limits(directory):
                cause, detail = "limit", f"it went over its {_LIMITS[signal.Signals(signum)]}"
            used = replace(usage, memory_bytes=None, pids=None)
            status = ExitStatus(cause, code, signum, written[1], used, detail)
        with contextlib.suppress(FileNotFoundError):
            write_status(directory, status)
        self._after(self._release(id), f"network of {id}")
        return status

    def _enroll(self, group: str, record: Record) -> None:
        """Put conmon into the sandbox's cgroup; see _ENROLL_SECONDS."""
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if record.conmon_lives():
                self._host.cgroups.add(group, record.conmon)

    async def _release(self, id: SandboxId) -> None:
        """Addresses and ports are another's now; what cannot be given back is found by whoever looks for one."""
        with contextlib.suppress(AosError):
            await release(self._host, id)

    def _after(self, work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        task = asyncio.create_task(work, name=name)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task

    def forget(self, id: SandboxId) -> None:
        self._ends.pop(id, None)


def _limits(directory: Path) -> set[str]:
    """Names of the limits that its processes were started with."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
        return {limit["type"] for limit in config["process"]["rlimits"]}
    except (OSError, ValueError, KeyError):
        return set()


async def _until_gone(record: Record) -> int | None:
    """Wait for conmon's end; its wait status, where this process is the one that started it."""
    try:
        pidfd = os.pidfd_open(record.conmon)
    except ProcessLookupError:
        return reap(record.conmon)
    try:
        if record.conmon_lives():
            await wait_readable(pidfd, None, "conmon")
    finally:
        os.close(pidfd)
    return reap(record.conmon)


def _how(status: int | None) -> str:
    """How conmon ended without a word. Whoever started it may be gone, and then nobody knows."""
    if status is None:
        return "was killed"
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"ended by itself with code {code}"
