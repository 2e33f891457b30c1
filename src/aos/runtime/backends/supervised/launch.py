"""Start a process, in a private mount namespace where that is asked for, and wait for short-lived tools.

The namespace is made by a thread that exists for this alone: unshare(2) of CLONE_NEWNS affects the calling
thread, and the process it spawns inherits its view.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import fcntl
import os
import signal
import threading
from typing import TYPE_CHECKING, TypeVar

from aos.errors import AosError, FailedPrecondition, Unavailable
from aos.runtime.backends.supervised.mounts import separate_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


__all__ = [
    "ToolFailed",
    "in_own_thread",
    "reap",
    "reap_later",
    "run_tool",
    "spawn",
    "tool_environment",
    "wait_readable",
    "watch_end",
]

_T = TypeVar("_T")


class ToolFailed(Exception):
    """An OCI runtime refused; the message is its own."""


def tool_environment() -> dict[str, str]:
    """What conmon and the OCI runtime are started with; sandboxes see none of it.

    GOGC=off: runc lives for 20 ms, and collecting garbage takes a fifth of them (measured)."""
    return {"PATH": os.environ.get("PATH", os.defpath), "GOGC": "off"}


async def spawn(
    argv: list[str],
    env: Mapping[str, str],
    fds: Sequence[int],
    cwd: Path,
    enter: Callable[[], object] | None = None,
    inside: Callable[[Callable[[], int]], int] | None = None,
    furnish: Callable[[], object] | None = None,
) -> int:
    """Start `argv` in a session and a directory of its own, its descriptors 3, 4, … being `fds`; return its pid.

    Standard input and output are /dev/null; standard error, too, unless `fds` says otherwise. `enter` takes the thread
    that starts it to namespaces of its own, `furnish` makes there what it will need: meanwhile it loads. `inside` is
    called with what starts the process, and takes it to where it shall be; who is there makes nothing any more.
    """

    def start() -> int:
        if enter is not None:
            enter()
        else:
            separate_directory()
        if inside is not None and furnish is not None:
            furnish()
        os.chdir(cwd)  # this thread's own, in either case; so is the umask
        os.umask(0o022)  # a runtime makes working directories and mount points that a root file system lacks
        if inside is not None:
            return inside(lambda: _spawn(argv, env, fds))
        pid = _spawn(argv, env, fds)
        if furnish is not None:
            try:
                furnish()
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        return pid

    return await in_own_thread(start)


def _spawn(argv: list[str], env: Mapping[str, str], fds: Sequence[int]) -> int:
    # First above all targets, so that no dup2 overwrites a descriptor that is still to be used.
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + len(fds)) for fd in fds]
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
        *((os.POSIX_SPAWN_DUP2, fd, 3 + index) for index, fd in enumerate(safe)),
    ]
    try:
        return os.posix_spawn(
            argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_RESET
        )
    except OSError as error:
        raise _not_started(argv[0], error) from error
    finally:
        for fd in safe:
            os.close(fd)


def _not_started(program: str, error: OSError) -> Exception:
    if error.errno in (
        errno.E2BIG,
        errno.ENOMEM,
    ):  # how execve(2) puts that a group has no room for the first pages
        return ToolFailed(f"OOM: {program} cannot be started: {error.strerror}")
    return FailedPrecondition(
        f"{program} cannot be started: {error.strerror}",
        code="runtime-missing",
        hint=f"install {program.rpartition('/')[2]} again; `aos doctor` checks the rest",
        tool=program,
    )


_RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT)


async def in_own_thread(work: Callable[[], _T]) -> _T:
    """Run in a thread that is never used again. When cancelled, return (by raising) only once it has ended: it
    uses descriptors that the caller is about to close."""
    loop = asyncio.get_running_loop()
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="namespaces", daemon=True).start()
    done = asyncio.wrap_future(future, loop=loop)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError, AosError):
                await asyncio.shield(done)
        raise


async def wait_readable(fd: int, seconds: float | None, what: str) -> None:
    """Until there is something to read or the other end is closed; Unavailable (`tool-timeout`) after `seconds`."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def answer() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, answer)
    try:
        async with asyncio.timeout(seconds):
            await ready
    except TimeoutError as error:
        raise Unavailable(
            f"{what} did not answer within {seconds:g} s",
            code="tool-timeout",
            hint="see whether the host is overloaded; `aos doctor` checks the tools",
        ) from error
    finally:
        loop.remove_reader(fd)


async def watch_end(pidfd: int) -> None:
    """Until the process behind the descriptor has ended."""
    await wait_readable(pidfd, None, "the process")


def reap(pid: int) -> int | None:
    """The wait status of a child that has ended; None when it lives, or is not our child (any more)."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if done else None


def reap_later(pid: int) -> None:
    """Reap a child that is about to end, as soon as it has, whoever waits for what meanwhile."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        reap(pid)

    loop.add_reader(pidfd, ended)


_SAID = 4 << 20


async def run_tool(
    argv: list[str], env: Mapping[str, str], *, seconds: float, everything: bool = False
) -> tuple[int, str]:
    """Run a short-lived tool; (exit code, what it said on standard error, and with `everything` on standard output,
    at most 4 MiB). It is killed after `seconds`."""
    saying = os.memfd_create("said")  # unlike a pipe it is never full
    try:
        pid = _spawn_tool(argv, env, saying, everything)
        pidfd = os.pidfd_open(pid)
        try:
            try:
                async with asyncio.timeout(seconds):
                    await watch_end(pidfd)
            except TimeoutError as error:
                raise Unavailable(
                    f"{' '.join(argv)} did not end within {seconds:g} s",
                    code="tool-timeout",
                    hint="see whether the host is overloaded; `aos doctor` checks the tools",
                ) from error
        finally:
            status = await _finish(pid, pidfd)
        said = os.pread(saying, _SAID, 0)
        return os.waitstatus_to_exitcode(status), said.decode(errors="replace").strip()
    finally:
        os.close(saying)


def _spawn_tool(argv: list[str], env: Mapping[str, str], stderr: int, everything: bool) -> int:
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, stderr if everything else 0, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    try:
        return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsigmask=(), setsigdef=_RESET)
    except OSError as error:
        raise _not_started(argv[0], error) from error


async def _finish(pid: int, pidfd: int) -> int:
    """Collect the tool; kill it first when it still runs (a time limit, a cancellation)."""
    try:
        status = reap(pid)
        if status is None:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it was killed just now
        return status
    finally:
        os.close(pidfd)
