"""The streams of a process: FIFOs for containerd's shim, and the holder (holder.py) at their other ends.

<directory>/{stdin,stdout,stderr}    FIFOs; without stderr there is a terminal
<directory>/attach, ctl              as conmon's: where clients attach, and where they resize the terminal
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.runtime.backends.supervised.conmon import ATTACH, CONTROL
from aos.runtime.backends.supervised.launch import reap, spawn, watch_end
from aos.runtime.backends.supervised.record import process_start

if TYPE_CHECKING:
    from aos.ids import SandboxId
    from aos.runtime.backends.containerd.settings import ContainerdConfig
    from aos.runtime.spec import ProcessSpec

__all__ = ["Streams", "hold", "holders", "until_gone"]

_PROGRAM = Path(__file__).with_name("holder.py")


@dataclass(frozen=True, slots=True)
class Streams:
    """Paths for containerd; empty where there is none."""

    stdin: str
    stdout: str
    stderr: str

    @classmethod
    def make(cls, directory: Path, process: ProcessSpec) -> Streams:
        names = ["stdout", *(["stdin"] if process.stdin else []), *([] if process.terminal else ["stderr"])]
        for name in names:
            os.mkfifo(directory / name, 0o600)
        return cls.of(directory)

    @classmethod
    def of(cls, directory: Path) -> Streams:
        paths = [directory / name for name in ("stdin", "stdout", "stderr")]
        return cls(*(str(path) if path.exists() else "" for path in paths))


async def hold(
    config: ContainerdConfig,
    id: SandboxId,
    streams: Streams,
    directory: Path,
    *,
    log: Path | None = None,
    leave_stdin_open: bool = False,
    exec_id: str = "",
    client: int | None = None,
    started: int | None = None,
    control: int | None = None,
) -> int:
    """Start a holder; its pid. With `log` it holds the entrypoint's streams, and clients attach in `directory`; an exec
    has one `client`, and tells with `started` and `control` (aos.runtime.backends.containerd.holder)."""
    held: dict[str, int] = {}
    given = {"client": client, "started": started, "control": control}
    words = {
        "address": config.address,
        "namespace": config.namespace,
        "container": str(id),
        "exec": exec_id,
        "leave": str(int(leave_stdin_open)),
    }
    try:
        held["out"] = os.open(streams.stdout, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if streams.stderr:
            held["err"] = os.open(streams.stderr, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if streams.stdin:  # for both, as there is no reader yet that O_WRONLY would find
            held["in"] = os.open(streams.stdin, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if log is not None:
            words["log_path"] = str(log)
            held["log"] = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held["listen"] = _listen(directory)
            if not (directory / CONTROL).exists():
                os.mkfifo(directory / CONTROL, 0o600)
            held["control"] = os.open(directory / CONTROL, os.O_RDWR | os.O_CLOEXEC)
        passed = held | {name: fd for name, fd in given.items() if fd is not None}
        words |= {name: str(3 + place) for place, name in enumerate(passed)}
        argv = [sys.executable, "-IS", str(_PROGRAM), *(f"{name}={value}" for name, value in words.items())]
        return await spawn(argv, {}, [*passed.values()], directory)
    finally:
        for fd in held.values():
            os.close(fd)


def _listen(directory: Path) -> int:
    """By way of the directory's descriptor: paths may be longer than the 107 bytes that a socket address takes."""
    (directory / ATTACH).unlink(missing_ok=True)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listening.bind(f"/proc/self/fd/{place}/{ATTACH}")
        listening.listen(16)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(place)
    return listening.detach()


async def until_gone(pid: int, start: str) -> None:
    """Until a holder has ended, which may have been another daemon's child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        reap(pid)
        return
    try:
        if process_start(pid) == start:
            await watch_end(pidfd)
    finally:
        os.close(pidfd)
    await asyncio.sleep(0)
    reap(pid)


def holders(id: SandboxId, address: str) -> list[int]:
    """All that there are for a sandbox, found by what they were started with."""
    words = {os.fsencode(f"container={id}"), os.fsencode(f"address={address}"), os.fsencode(_PROGRAM)}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if words <= set((entry / "cmdline").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
