"""A plugin from outside: each call is a process of its own, with a time limit, that ends with the build.

So a plugin can hang, crash or write what it likes without harming the build, and its modules cost a build that does
not use it nothing. It is no prison: a plugin runs as whoever builds, on the host.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.build.host.command import run_on_host
from aos.build.plugins import PluginStopped
from aos.errors import FailedPrecondition, from_wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import timedelta

    from aos.build.plugins import PluginTask

__all__ = ["ExternalPlugin"]

_CHILD = Path(__file__).with_name("child.py")
_LARGEST = 1 << 20
"""Bytes of an answer; it is part of a cache key, not of a layer."""
_TAIL = 4096
"""Bytes of output that an error of `inputs` shows."""


@dataclass(frozen=True, slots=True)
class ExternalPlugin:
    name: str
    entry_point: str
    """`module:attribute`."""
    distribution: str
    version: str
    environ: Mapping[str, str]
    inputs_limit: timedelta

    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        """What the plugin declares, and the version of its distribution. Raise ValueError for what it says of the
        options, PluginStopped, and AosError that it raises."""
        with _exchange({"call": "inputs", "entry_point": self.entry_point, "options": options}) as file:
            code, tail = _call(self._command(file), self.environ, file, self.inputs_limit.total_seconds())
            if code is None:
                seconds = self.inputs_limit.total_seconds()
                how = f"did not end `inputs` within {seconds:g} s and was killed"
                raise PluginStopped(how, code="plugin-timeout", tail=tail)
            answer = _answer(file, code, tail)
        if "options" in answer:
            raise ValueError(str(answer["options"]))
        declared = answer.get("inputs")
        if not isinstance(declared, dict):
            raise PluginStopped("answered with no inputs", tail=tail)
        tools = declared.get("tools", {})
        if not isinstance(tools, dict):
            raise PluginStopped("declared `tools` that are no dict", tail=tail)
        return {**declared, "tools": {**tools, self.distribution: self.version}}

    async def execute(self, task: PluginTask) -> None:
        """Raise PluginStopped, and AosError that the plugin raises."""
        work = {
            "options": dict(task.options),
            "inputs": dict(task.inputs),
            "root": str(task.root),
            "below": [str(layer) for layer in task.below.layers],
            "epoch": task.epoch,
            "platform": task.platform,
            "environ": dict(task.environ),
            "cache": str(task.cache),
            "scratch": str(task.scratch),
        }
        with _exchange({"call": "execute", "entry_point": self.entry_point, "task": work}) as file:
            code, tail = await run_on_host(self._command(file), task.environ, task.output, pass_fds=(file,))
            _answer(file, code, tail)

    def _command(self, file: int) -> tuple[str, ...]:
        return (sys.executable, "-I", str(_CHILD), json.dumps(sys.path), str(file))


@contextlib.contextmanager
def _exchange(request: Mapping[str, object]) -> Iterator[int]:
    """A file in memory that holds the request, and later the answer."""
    file = os.memfd_create("plugin", os.MFD_CLOEXEC)
    try:
        os.write(file, json.dumps(request).encode())
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


def _answer(file: int, code: int, tail: Sequence[str]) -> Mapping[str, object]:
    if code != 0:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise PluginStopped(f"{how} in the middle of its work", tail=tail)
    data = os.pread(file, _LARGEST + 1, 0)
    if len(data) > _LARGEST:
        raise PluginStopped("declared more than 1 MiB of inputs", tail=tail)
    if not data:
        raise PluginStopped("ended without an answer", tail=tail)
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise PluginStopped("spoilt its answer", tail=tail) from error
    if not isinstance(answer, dict):
        raise PluginStopped("spoilt its answer", tail=tail)
    if "failed" in answer:
        raise PluginStopped(str(answer["failed"]), tail=tail)
    if isinstance(answer.get("error"), dict):
        raise from_wire(answer["error"])
    return answer


def _call(
    args: Sequence[str], environ: Mapping[str, str], file: int, seconds: float
) -> tuple[int | None, list[str]]:
    """Run a command that needs no namespace of its own; its exit code (None: it took too long) and last output.

    Blocking, for plans are made before there is an event loop."""
    if shutil.which("setpriv", path=environ.get("PATH")) is None:
        raise FailedPrecondition(
            "setpriv is not installed", code="util-linux-missing", hint="sudo apt-get install util-linux"
        )
    end = time.monotonic() + seconds
    tail: collections.deque[int] = collections.deque(maxlen=_TAIL)
    with (
        subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd="/",
            umask=0o022,
            pass_fds=(file,),
            start_new_session=True,
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        try:
            while selector.select(max(0, end - time.monotonic())):
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    break
                tail.extend(piece[-_TAIL:])
            code = process.wait(max(0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return code, bytes(tail).decode(errors="replace").splitlines()
