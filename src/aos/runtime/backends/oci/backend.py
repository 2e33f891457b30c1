"""The `oci` backend: what each call of the Runtime protocol does with conmon and an OCI runtime.

Everything it knows is on disk (record.py, the runtime's state directory, cgroups) or in /proc; the object only
remembers descriptors of conmons that it watches. So any number of instances, one after the other or at once, see
the same sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Never

from aos import errors
from aos.content.tree import LayerTree
from aos.ids import SandboxId
from aos.runtime.backends.oci.conmon import LOG, connect_stdio
from aos.runtime.backends.oci.ending import Ends
from aos.runtime.backends.oci.execs import Execs
from aos.runtime.backends.oci.failures import failure, refused_limits
from aos.runtime.backends.oci.host import Host, OciConfig, wrong_state
from aos.runtime.backends.oci.making import Making
from aos.runtime.backends.oci.record import Record, read_status, remove_tree
from aos.runtime.backends.oci.removal import Removal
from aos.runtime.protocol import RuntimeInfo
from aos.runtime.state import Sandbox, SandboxState

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.content.store import ContentStore
    from aos.runtime.protocol import Exec, Stdio
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, Usage

__all__ = ["OciConfig", "OciRuntime"]


class OciRuntime:
    """One sandbox is one conmon, one OCI runtime container, one cgroup, one directory."""

    def __init__(self, config: OciConfig, content: ContentStore) -> None:
        self._host = Host(config, content)
        self._ends = Ends(self._host)
        self._removal = Removal(self._host, self._ends)
        self._making = Making(self._host, self._ends, self._removal)
        self._execs = Execs(self._host, self._ends)

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        return await self._making.create(id, spec)

    async def start(self, id: SandboxId) -> None:
        await self._making.start(id)

    async def wait(self, id: SandboxId) -> ExitStatus:
        return await self._ends.wait(id)

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        return await self._execs.exec(id, process, attach=attach)

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        return await self._execs.start(id, exec_id)

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        await self._removal.delete(id, force=force)

    async def info(self) -> RuntimeInfo:
        runtime, conmon = self._host.tools()
        versions = {}
        for tool in (runtime, conmon):
            process = await asyncio.create_subprocess_exec(tool, "--version", stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            versions[tool] = output.decode(errors="replace").partition("\n")[0].strip()
        return RuntimeInfo(
            "oci",
            versions[runtime],
            frozenset({"attach", "exec", "limits", "logs", "pause", "stats", "terminal", "update"}),
            {
                "runtime": runtime,
                "conmon": f"{conmon} ({versions[conmon]})",
                "cgroups": self._host.cgroups.version,
            },
        )

    async def signal(self, id: SandboxId, signum: signal.Signals, *, everyone: bool = False) -> None:
        state = self._host.state(id)
        if not state.can_signal():
            return
        if everyone:
            for pid in self._host.cgroups.pids(self._host.group(id)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            return
        if state is SandboxState.CREATED:
            if signum == signal.SIGKILL:
                await self._host.kill_payload(id)
            return
        init = self._host.pid(id)
        if init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signum)
        if state is SandboxState.PAUSED and signum == signal.SIGKILL:
            await self.resume(id)

    async def pause(self, id: SandboxId) -> None:
        await self._change(id, "pause", SandboxState.can_pause)

    async def resume(self, id: SandboxId) -> None:
        await self._change(id, "resume", SandboxState.can_resume)

    async def update(self, id: SandboxId, limits: Limits) -> None:
        state = self._host.state(id)
        if not state.can_update():
            raise wrong_state(id, state, "update")
        try:
            self._host.cgroups.limit(self._host.group(id), limits)
        except OSError as error:
            raise refused_limits(error, id) from error

    async def attach(self, id: SandboxId) -> Stdio:
        directory = self._host.directory(id)
        record = Record.read(directory)
        state = self._host.state(id)
        if record is None or state is SandboxState.STOPPED:
            raise wrong_state(id, state, "attach")
        return connect_stdio(directory, record.terminal)

    async def logs(self, id: SandboxId) -> Path:
        directory = self._host.directory(id)
        record = Record.read(directory)
        return Path(record.log) if record is not None else directory / LOG

    async def stats(self, id: SandboxId) -> Usage:
        status = read_status(self._host.directory(id))
        return status.usage if status is not None else self._host.cgroups.usage(self._host.group(id))

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        _lacks("checkpoint")

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        _lacks("restore")

    async def list(self) -> list[Sandbox]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for directory in sorted(self._host.sandboxes.iterdir()):
                id = SandboxId(directory.name)
                if directory.name.startswith("."):
                    await asyncio.to_thread(remove_tree, directory)  # a deletion that was interrupted
                    continue
                state = self._host.state(id)
                status = read_status(directory)
                if state is SandboxState.STOPPED and status is None:
                    status = await self._ends.wait(id)
                found.append(Sandbox(id, state, None if status else self._host.pid(id), status))
        return found

    async def _change(self, id: SandboxId, verb: str, allowed: Callable[[SandboxState], bool]) -> None:
        state = self._host.state(id)
        if not allowed(state):
            raise wrong_state(id, state, verb)
        code, said = await self._host.tool(verb, id)
        if code != 0:
            raise failure(said, None, LayerTree([]))


def _lacks(capability: str) -> Never:
    raise errors.NotImplemented(
        f"the oci backend cannot {capability} processes",
        code="capability-missing",
        hint="the gvisor backend will; without it an agent restarts from its entrypoint",
        backend="oci",
        capability=capability,
    )
