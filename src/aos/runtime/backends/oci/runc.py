"""runc, crun and youki as the tool of a supervised backend: one command line, namespaces and cgroups underneath."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.errors import AosError
from aos.runtime.backends.supervised.host import find_program
from aos.runtime.backends.supervised.launch import ToolFailed, wait_readable
from aos.runtime.backends.supervised.processes import read_processes
from aos.runtime.backends.supervised.record import process_has_executed
from aos.runtime.loopback import connect_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.ids import SandboxId
    from aos.runtime.backends.supervised.host import Host
    from aos.runtime.backends.supervised.record import Record
    from aos.runtime.protocol import Isolation
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, ProcessInfo, Usage

__all__ = ["Runc"]

_PROGRAMS = ("runc", "crun", "youki")
"""In the order of choice."""


class Runc:
    backend = "oci"
    capabilities = frozenset(
        {
            *("attach", "connect", "copy", "exec", "limits", "logs", "pause", "prepare", "stats", "terminal"),
            *(
                "files",
                "network-host",
                "network-none",
                "pause-signals",
                "rename",
                "top",
                "update",
                "update-pids",
            ),
        }
    )
    isolation: Isolation = "namespaces"
    seccomp = True
    user_namespaces = True
    devices = True
    own_loopback = True
    own_group = True

    def __init__(self, program: str = "") -> None:
        """`program`: a name or a path; empty: the first that is installed."""
        self._programs = (program,) if program else _PROGRAMS

    def find(self) -> str:
        return find_program(*self._programs)

    def options(self, spec: AgentSpec) -> tuple[str, ...]:
        return ()

    def exec_prefix(self, process: ProcessSpec) -> tuple[str, ...]:
        return ()

    def configure(self, config: dict[str, Any], spec: AgentSpec) -> None:
        """What aos.runtime.bundle makes is made for these."""

    def group_limits(self, limits: Limits) -> Limits:
        return limits

    def facts(self) -> Mapping[str, str]:
        return {"limits": "no checkpoints of processes; the host's kernel answers every system call"}

    def waiting(self, host: Host, id: SandboxId, pid: int) -> bool:
        # Opening the FIFO lets the entrypoint go: who did may have been killed before it removed the FIFO.
        return _fifo(host, id).exists() and not process_has_executed(pid)

    def paused(self, host: Host, id: SandboxId) -> bool:
        return host.cgroups.frozen(host.group(id))

    async def start(self, host: Host, id: SandboxId, record: Record, ended: asyncio.Task[ExitStatus]) -> None:
        if Path(record.runtime).name == "runc":
            # To its end, also when cancelled: who opens the FIFO and does not read lets init die of a broken pipe.
            releasing = asyncio.create_task(self._release(host, id, ended), name=f"start of {id}")
            try:
                return await asyncio.shield(releasing)
            finally:
                if not releasing.done():
                    await asyncio.wait({releasing})
        code, said = await host.call(id, "start")
        if code != 0:
            raise ToolFailed(said)

    async def _release(self, host: Host, id: SandboxId, ended: asyncio.Task[ExitStatus]) -> None:
        """What `runc start` does, without its 6 ms: the container's init blocks until somebody reads its FIFO, and
        the FIFO's absence says that it runs (libcontainer/container_linux.go, `exec` and `handleFifoResult`)."""
        fifo = _fifo(host, id)
        descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            written = asyncio.create_task(wait_readable(descriptor, host.config.tool_seconds, "runc init"))
            try:
                await asyncio.wait({written, ended}, return_when=asyncio.FIRST_COMPLETED)
                if written.done():
                    await written
                elif not os.read(descriptor, 16):  # it wrote nothing: it ended without having run
                    raise ToolFailed("the sandbox ended before it was started")
            finally:
                written.cancel()
                with contextlib.suppress(asyncio.CancelledError, AosError):
                    await written
            fifo.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    async def signal(self, host: Host, id: SandboxId, signum: signal.Signals, *, everyone: bool) -> None:
        init = host.init(id)
        for pid in host.cgroups.pids(host.group(id)) if everyone else [init] if init is not None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        if signum == signal.SIGKILL and self.paused(host, id):
            await host.call(id, "resume")  # what is frozen does not die

    async def resumed(self, host: Host, id: SandboxId) -> None:
        """The kernel has kept the signals of the pause."""

    async def processes(self, host: Host, id: SandboxId) -> list[ProcessInfo]:
        return read_processes(await asyncio.to_thread(host.cgroups.pids, host.group(id)))

    async def connect(self, host: Host, id: SandboxId, port: int) -> int:
        pid = host.init(id)
        if pid is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "it has ended")
        return await connect_loopback(pid, port)

    def usage(self, usage: Usage) -> Usage:
        return usage

    def forget(self, host: Host, id: SandboxId) -> None:
        shutil.rmtree(host.states / id, ignore_errors=True)


def _fifo(host: Host, id: SandboxId) -> Path:
    return host.states / id / "exec.fifo"
