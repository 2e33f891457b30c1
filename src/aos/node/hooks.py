"""Hooks: commands at moments of an agent's life, in its sandbox or, where the configuration allows it, on the host.

What they write goes to the agent's log, each line with the hook's name before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition, PermissionDenied
from aos.ids import SandboxId
from aos.node.inside import Outcome, one_line, run_inside

if TYPE_CHECKING:
    from pathlib import Path

    from aos.clock import Clock
    from aos.kernel.process.health import Hook
    from aos.kernel.process.records import Program
    from aos.runtime.protocol import Runtime
    from aos.runtime.spec import ProcessSpec

__all__ = ["Hooks", "Moment", "check_host_hooks"]

_OUTPUT = 64 << 10
"""Bytes of a host hook's output that are kept."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Whose hook it is, and what it can use: a sandbox and an entrypoint are not always there."""

    agent: str
    name: str
    program: Program
    log: Path
    sandbox: str = ""
    process: ProcessSpec | None = None


class Hooks:
    def __init__(self, runtime: Runtime, clock: Clock, *, allow_host: bool) -> None:
        self._runtime = runtime
        self._clock = clock
        self._allow_host = allow_host

    async def run(self, event: str, moment: Moment) -> None:
        """Run the hooks of an event (`pre_start`) one after the other. FailedPrecondition `hook-failed` for the first
        that fails and may not; hooks of the host that are not allowed fail."""
        for hook in moment.program.hooks.get(event, ()):
            outcome = await self._one(event, hook, moment)
            shown = _camel(event)
            self._write(moment.log, shown, outcome)
            if not outcome.good and hook.on_failure == "fail":
                raise FailedPrecondition(
                    f"the hook {shown} of agent {moment.name} failed: {outcome.why}",
                    code="hook-failed",
                    hint=_last_line(outcome.output) or "its output is in the agent's log",
                    agent=moment.agent,
                    hook=shown,
                    exit_status=125,
                )

    async def _one(self, event: str, hook: Hook, moment: Moment) -> Outcome:
        if hook.where == "host":
            if not self._allow_host:
                return Outcome(False, "", "hooks on the host are not allowed here (allow_host_hooks)")
            return await _on_host(event, hook, moment)
        if moment.process is None:
            return Outcome(False, "", "there is no sandbox")
        user = hook.user or moment.process.user
        command = replace(moment.process, args=hook.exec, user=user, terminal=False, stdin=False)
        return await run_inside(self._runtime, SandboxId(moment.sandbox), command, hook.timeout)

    def _write(self, log: Path, event: str, outcome: Outcome) -> None:
        """One `write` a line, at the end: the log is conmon's at the same time."""
        at = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
        lines = [("stdout", line) for line in outcome.output.splitlines()]
        if not outcome.good:
            lines.append(("stderr", f"failed: {outcome.why}"))
        with contextlib.suppress(OSError), log.open("ab", buffering=0) as file:
            for stream, line in lines:
                file.write(f"{at} {stream} F [{event}] {line}\n".encode())


async def _on_host(event: str, hook: Hook, moment: Moment) -> Outcome:
    """As the node's user, in `/`, with an environment that names the agent; its whole session ends with the time."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "AOS_HOOK": _camel(event),
        "AOS_AGENT": moment.agent,
        "AOS_AGENT_NAME": moment.name,
        "AOS_SANDBOX": moment.sandbox,
    }
    try:
        process = await asyncio.create_subprocess_exec(
            *hook.exec,
            env=environment,
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(False, "", f"{hook.exec[0]}: {error.strerror}")
    assert process.stdout is not None
    output = bytearray()
    try:
        async with asyncio.timeout(hook.timeout):
            while data := await process.stdout.read(8192):
                output += data[: max(0, _OUTPUT - len(output))]
            code = await process.wait()
    except TimeoutError:
        return Outcome(False, output.decode(errors="replace"), f"it took longer than {hook.timeout:g} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    text = output.decode(errors="replace")
    return Outcome(code == 0, text, "" if code == 0 else f"it ended with exit code {code}")


def check_host_hooks(program: Program, *, allow_host: bool) -> None:
    """PermissionDenied `host-hooks-refused` when a package wants to run commands on the host and may not."""
    wanted = [
        _camel(event) for event, hooks in program.hooks.items() if any(hook.where == "host" for hook in hooks)
    ]
    if wanted and not allow_host:
        raise PermissionDenied(
            f"{program.reference} has hooks that run on the host: {', '.join(wanted)}",
            code="host-hooks-refused",
            hint="if you trust it, say `allow_host_hooks = true` in the node's configuration and restart the node",
        )


def _camel(event: str) -> str:
    first, *rest = event.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _last_line(text: str) -> str:
    return one_line(text.strip().rpartition("\n")[2], 200)
