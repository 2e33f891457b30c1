"""Run a command of the host for a step, so that it can outlive nothing: neither the build nor its own mounts."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import shutil
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["run_on_host"]

_TAIL = 40
_LONGEST_LINE = 1 << 16


async def run_on_host(
    args: Sequence[str],
    environ: Mapping[str, str],
    output: Callable[[str], None],
    *,
    pass_fds: Sequence[int] = (),
) -> tuple[int, list[str]]:
    """The exit code (negative: minus the signal) and the last lines of output. Raise FailedPrecondition.

    The command lives in a mount and a pid namespace of its own, and dies with this process, kill -9 included
    (setpriv --pdeathsig, unshare --kill-child: util-linux); so nothing it mounts is ever seen by the host.
    """
    for tool in ("setpriv", "unshare"):
        if shutil.which(tool) is None:
            raise FailedPrecondition(
                f"{tool} is not installed", code="util-linux-missing", hint="sudo apt-get install util-linux"
            )
    command = (
        "setpriv",
        "--pdeathsig",
        "KILL",
        "--",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        "--kill-child",
        "--",
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environ),
        umask=0o022,
        cwd="/",
        limit=_LONGEST_LINE,
        pass_fds=tuple(pass_fds),
    )
    assert process.stdout is not None
    tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
    try:
        rest = b""
        while chunk := await process.stdout.read(_LONGEST_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _say(line, tail, output)
        if rest:
            _say(rest, tail, output)
        return await process.wait(), list(tail)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(_ended(process, process.stdout))


async def _ended(process: asyncio.subprocess.Process, stdout: asyncio.StreamReader) -> None:
    """asyncio says so only after the end of the output, which it does not see while its buffer is full."""
    while await stdout.read(_LONGEST_LINE):
        pass
    await process.wait()


def _say(line: bytes, tail: collections.deque[str], output: Callable[[str], None]) -> None:
    text = line.decode(errors="replace")
    tail.append(text)
    output(text)
