"""RuntimeFacade: several backends behind the one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.errors import AosError, InvalidArgument, NotFound

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.protocol import Exec, Runtime, RuntimeInfo, Stdio
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, Sandbox, Usage

__all__ = ["RuntimeFacade"]


class RuntimeFacade:
    """A Runtime that creates with the backend a spec names, and finds a sandbox where it is.

    A backend is asked for what it has when an id is not known yet, which is after a restart."""

    def __init__(self, backends: Mapping[str, Runtime], default: str) -> None:
        self._backends = backends
        self._default = default
        self._where: dict[SandboxId, Runtime] = {}
        self.backend(default)

    def backend(self, name: str) -> Runtime:
        """The backend of this name, or the default; InvalidArgument `runtime-unknown` lists what there is."""
        found = self._backends.get(name or self._default)
        if found is None:
            raise InvalidArgument(
                f"no runtime {name!r}",
                code="runtime-unknown",
                hint=f"there is: {', '.join(sorted(self._backends))}",
                runtime=name,
            )
        return found

    async def infos(self) -> list[RuntimeInfo]:
        """Of every backend that works on this host."""
        found = []
        for backend in self._backends.values():
            try:
                found.append(await backend.info())
            except AosError:
                continue
        return found

    async def info(self) -> RuntimeInfo:
        return await self.backend("").info()

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        backend = self.backend(spec.runtime)
        made = await backend.create(id, spec)
        self._where[id] = backend
        return made

    async def start(self, id: SandboxId) -> None:
        await (await self._find(id)).start(id)

    async def wait(self, id: SandboxId) -> ExitStatus:
        return await (await self._find(id)).wait(id)

    async def signal(self, id: SandboxId, signum: signal.Signals, *, everyone: bool = False) -> None:
        await (await self._find(id)).signal(id, signum, everyone=everyone)

    async def pause(self, id: SandboxId) -> None:
        await (await self._find(id)).pause(id)

    async def resume(self, id: SandboxId) -> None:
        await (await self._find(id)).resume(id)

    async def update(self, id: SandboxId, limits: Limits) -> None:
        await (await self._find(id)).update(id, limits)

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        return await (await self._find(id)).exec(id, process, attach=attach)

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        return await (await self._find(id)).start_exec(id, exec_id)

    async def attach(self, id: SandboxId) -> Stdio:
        return await (await self._find(id)).attach(id)

    async def logs(self, id: SandboxId) -> Path:
        return await (await self._find(id)).logs(id)

    async def stats(self, id: SandboxId) -> Usage:
        return await (await self._find(id)).stats(id)

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        await (await self._find(id)).checkpoint(id, image, leave_running=leave_running)

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        backend = self.backend(spec.runtime)
        made = await backend.restore(id, spec, image)
        self._where[id] = backend
        return made

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        try:
            backend = await self._find(id)
        except NotFound:
            return
        await backend.delete(id, force=force)
        self._where.pop(id, None)

    async def list(self) -> list[Sandbox]:
        found = []
        for backend in self._backends.values():
            for sandbox in await backend.list():
                self._where[sandbox.id] = backend
                found.append(sandbox)
        return found

    async def _find(self, id: SandboxId) -> Runtime:
        if id not in self._where:
            await self.list()
        try:
            return self._where[id]
        except KeyError:
            raise NotFound(
                f"no sandbox {id}", code="sandbox-not-found", hint="list what there is", sandbox=id
            ) from None
