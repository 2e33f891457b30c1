"""conmon, as AOS uses it: how it is started, what it says while it starts, and what it leaves when it ends.

It holds the standard streams and the exit code of one process, and outlives the daemon. Facts from
github.com/containers/conmon, src/conmon.c, version 2.1: `_OCI_STARTPIPE` holds it back until it is in its cgroup;
`_OCI_SYNCPIPE` gets one JSON line when the process is created, or why not; `_OCI_ATTACHPIPE` gets one when an
exec can be attached to, and the start pipe is then read a second time; the exit file holds the code, 128 + signal
for a signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import Internal, NotFound
from aos.runtime.backends.supervised.launch import (
    ToolFailed,
    reap_later,
    spawn,
    tool_environment,
    wait_readable,
)
from aos.runtime.protocol import Stdio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aos.runtime.spec import ProcessSpec

__all__ = [
    "EXIT",
    "Conmon",
    "connect",
    "connect_stdio",
    "decode_exit",
    "kill_tree",
    "open_control",
    "read_exit_file",
]

ATTACH, CONTROL, LOG, PIDFILE, EXIT = "attach", "ctl", "log", "pid", "exit"
"""What conmon makes in its bundle directory; `exit` is a directory."""
_ROUNDS = 20
_TEMPORARY = re.compile(r"\.[0-9A-Za-z]{6}$")
"""g_file_set_contents(3) of GLib."""


@dataclass(slots=True)
class Conmon:
    """One conmon that was started and still holds its process back."""

    pid: int
    _start: int
    _sync: int
    _attach: int = -1

    @classmethod
    async def launch(
        cls,
        *,
        conmon: str,
        runtime: Sequence[str],
        id: str,
        unique: str,
        bundle: Path,
        process: ProcessSpec,
        log: Path | None,
        leave_stdin_open: bool,
        exec_spec: Path | None,
        enter: Callable[[], object] | None,
        inside: Callable[[Callable[[], int]], int] | None,
        furnish: Callable[[], object] | None,
    ) -> Conmon:
        """Start it; it calls the OCI runtime after `release`. An exec (which has no log) is then attachable, and runs
        after a second `release`. `runtime`: the OCI runtime, and what stands before the verb in its command lines;
        `enter`, `inside`, `furnish`: as for `launch.spawn`."""
        (bundle / EXIT).mkdir(exist_ok=True)
        argv = [conmon, "--sync", "-c", id, "-u", unique, "-n", id, "-r", runtime[0], "-b", str(bundle)]
        argv += [
            "-p",
            str(bundle / PIDFILE),
            "--exit-dir",
            str(bundle / EXIT),
            "--full-attach",
            "--no-sync-log",
        ]
        for word in runtime[1:]:
            argv += ["--runtime-arg", word]
        argv += ["--log-level", "error"]
        argv += ["--persist-dir", str(bundle / EXIT), "--socket-dir-path", str(bundle)]
        argv += ["-t"] if process.terminal else []
        argv += ["-i"] if process.stdin else []
        argv += ["--leave-stdin-open"] if leave_stdin_open else []
        argv += ["-l", f"k8s-file:{log}" if log is not None else "none"]
        if exec_spec is not None:
            argv += ["--api-version", "1", "-e", "--exec-attach", "--exec-process-spec", str(exec_spec)]
        # The other ends go to conmon as 3, 4, 5.
        start_read, start = os.pipe()
        sync, sync_write = os.pipe()
        theirs, ours = [start_read, sync_write], [start, sync]
        env = {**tool_environment(), "_OCI_STARTPIPE": "3", "_OCI_SYNCPIPE": "4"}
        if exec_spec is not None:
            attach, attach_write = os.pipe()
            theirs.append(attach_write)
            ours.append(attach)
            env["_OCI_ATTACHPIPE"] = "5"
        try:
            # It leaves a file named oom where it stands when the kernel kills for want of memory.
            pid = await spawn(argv, env, theirs, bundle, enter, inside, furnish)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        for fd in ours[1:]:
            os.set_blocking(fd, False)
        return cls(pid, *ours)

    async def created(self, seconds: float) -> int:
        """The host pid of the process, once the runtime has created it. ToolFailed otherwise; Unavailable
        (`tool-timeout`) after `seconds`."""
        try:
            answer = await self._read(self._sync, seconds)
        finally:
            self.close()
        pid = answer.get("data", answer.get("pid", -1))
        if not isinstance(pid, int) or pid <= 0:
            raise ToolFailed(str(answer.get("message") or "the runtime gave no reason"))
        return pid

    async def attachable(self, seconds: float) -> None:
        """An exec's socket is there; it does not run before `release`."""
        await self._read(self._attach, seconds)

    def release(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: what it did not say tells it
            os.write(self._start, b"\n")

    def kill(self) -> None:
        """Give up; it is the caller's to clean up what it has made so far."""
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        self.close()

    def close(self) -> None:
        for fd in (self._start, self._sync, self._attach):
            if fd != -1:
                os.close(fd)
        self._start = self._sync = self._attach = -1

    async def _read(self, fd: int, seconds: float) -> dict[str, object]:
        line = b""
        while not line.endswith(b"\n"):
            await wait_readable(fd, seconds, "the OCI runtime")
            piece = os.read(fd, 1 << 16)
            if not piece:
                break
            line += piece
        try:
            answer = json.loads(line.partition(b"\n")[0])  # an exec that is over at once has said that, too
        except ValueError:
            raise ToolFailed("conmon ended without a word") from None
        return answer if isinstance(answer, dict) else {}


def connect(bundle: Path) -> int:
    """A connection to the process's streams, by way of the directory's descriptor: paths may be longer than the
    107 bytes that a socket address takes. NotFound (`not-attachable`) when the process has ended."""
    directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{ATTACH}")
    except OSError as error:
        connection.close()
        raise NotFound(
            "nothing to attach to: the process has ended",
            code="not-attachable",
            hint="`aos logs` has what it wrote",
        ) from error
    finally:
        os.close(directory)
    return connection.detach()


def open_control(bundle: Path) -> int:
    """The pipe that takes `1 <rows> <columns>` lines."""
    try:
        return os.open(bundle / CONTROL, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Internal(f"conmon has no control pipe: {error.strerror}", code="runtime-failed") from error


def connect_stdio(bundle: Path, terminal: bool) -> Stdio:
    """Both ends that a client needs; errors as for `connect`."""
    connection = connect(bundle)
    try:
        return Stdio(connection, open_control(bundle) if terminal else None)
    except BaseException:
        os.close(connection)
        raise


def read_exit_file(bundle: Path) -> tuple[int, float] | None:
    """(what conmon wrote, when), or None when it has not written (yet).

    It writes two files, `exit` (--persist-dir) and one with the container's id (--exit-dir), each under a temporary name
    with six letters behind a dot first. What a directory lists may so be gone when it is opened, and is then there
    under its name: those names alone count."""
    directory = f"{bundle}/{EXIT}"
    found = _read_number(f"{directory}/exit")
    if found is None:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            names = [entry.name for entry in entries if not _TEMPORARY.search(entry.name)]
            found = next(filter(None, (_read_number(f"{directory}/{name}") for name in names)), None)
    return found


def _read_number(path: str) -> tuple[int, float] | None:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - on the start path
            return int(file.read()), os.fstat(file.fileno()).st_mtime
    except (OSError, ValueError):
        return None


def decode_exit(status: int) -> tuple[int | None, int | None]:
    """(code, signal) of conmon's number. It writes 128 + n for signal n, as shells do, so an exit with a code
    above 128 that is a valid signal's counts as that signal."""
    number = status - 128
    if 0 < number < signal.NSIG:
        return None, number
    return status & 0xFF, None


def kill_tree(bundle: Path) -> None:
    """SIGKILL to the conmons of a bundle, which their command lines name, and to what descends from them. All are stopped
    first: one that forks while we look would leave us a child that nobody's command line names."""
    found: list[int] = []
    for _ in range(_ROUNDS):
        new = [pid for pid in _tree_of(os.fsencode(bundle)) if pid not in found]
        if not new:
            break
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        found += new
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            reap_later(pid)  # it may be a child of ours whose start was cancelled


def _tree_of(bundle: bytes) -> list[int]:
    parents: dict[int, int] = {}
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                parents[pid] = int((entry / "stat").read_bytes().rpartition(b") ")[2].split()[1])
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if b"conmon" in argv[0] and argv[argv.index(b"-b") + 1] == bundle:
                    found.append(pid)
    for pid in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == pid]
    return found
