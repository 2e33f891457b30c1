"""RuntimeFacade: several backends behind the one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.errors import AosError, InvalidArgument, NotFound
from aos.runtime.choice import AUTO, LADDER, Candidate, Choice, Needs, choose

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.protocol import Exec, Isolation, Runtime, RuntimeInfo, Stdio
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, ProcessInfo, Sandbox, Usage

__all__ = ["RuntimeFacade"]


class RuntimeFacade:
    """A Runtime that creates with the backend a spec names, and finds a sandbox where it is.

    A backend is asked for what it has when an id is not known yet, which is after a restart."""

    def __init__(self, backends: Mapping[str, Runtime], default: str, isolation: Isolation = "none") -> None:
        """`backends` in the order of choice; `isolation`: the least that this installation accepts."""
        self._backends = backends
        self._default = default
        self._isolation = isolation
        self._where: dict[SandboxId, str] = {}
        self._users: dict[SandboxId, tuple[int, ...] | str] = {}
        self._infos: dict[str, RuntimeInfo] = {}
        self.check(default)

    def check(self, name: str) -> None:
        """InvalidArgument `runtime-unknown` unless it is a backend, `auto`, or empty for the default."""
        if name not in ("", AUTO, *self._backends):
            raise InvalidArgument(
                f"no runtime {name!r}",
                code="runtime-unknown",
                hint=f"there is: {', '.join([*self._backends, AUTO])}",
                runtime=name,
            )

    def name_of(self, id: SandboxId) -> str | None:
        """The backend of a sandbox that is known so far."""
        return self._where.get(id)

    def users_of(self, id: SandboxId) -> tuple[int, ...] | str:
        """Whose user ids a sandbox that is known so far has, as `Sandbox.users` says it."""
        return self._users.get(id, "")

    async def candidates(self) -> list[Candidate]:
        """Every backend with what it is, or why it does not work on this host."""
        return [await self._candidate(name) for name in self._backends]

    async def _candidate(self, name: str) -> Candidate:
        """What works is asked once: a package that is installed later is found, one that is removed tells its error."""
        if name not in self._infos:
            try:
                self._infos[name] = await self._backends[name].info()
            except AosError as error:
                return Candidate(name, None, error)
        return Candidate(name, self._infos[name])

    async def choose(self, name: str = "", needs: Needs = Needs()) -> Choice:  # noqa: B008 - frozen
        """The backend for a sandbox that asks for `name`; FailedPrecondition `runtime-unfit` when it is not enough."""
        self.check(name)
        name = name or self._default
        needs = Needs(max(needs.isolation, self._isolation, key=LADDER.index), needs.capabilities)
        if name == AUTO:
            return choose(await self.candidates(), needs)
        if needs != Needs():  # else nothing has to be asked of the host, which takes longer than the choice
            choose([await self._candidate(name)], needs)
        return Choice(name, "it is named")

    async def info(self) -> RuntimeInfo:
        return await self._backends[(await self.choose()).name].info()

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        name = (await self.choose(spec.runtime, Needs(spec.isolation, spec.needs))).name
        made = await self._backends[name].create(id, spec)
        self._know(made, name)
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

    async def rename(self, id: SandboxId, hostname: str) -> None:
        await (await self._find(id)).rename(id, hostname)

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

    async def processes(self, id: SandboxId) -> list[ProcessInfo]:
        return await (await self._find(id)).processes(id)

    async def root(self, id: SandboxId) -> int:
        return await (await self._find(id)).root(id)

    async def connect(self, id: SandboxId, port: int) -> int:
        return await (await self._find(id)).connect(id, port)

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        await (await self._find(id)).checkpoint(id, image, leave_running=leave_running)

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        needs = Needs(spec.isolation, spec.needs | {"restore"})
        name = (await self.choose(spec.runtime, needs)).name
        made = await self._backends[name].restore(id, spec, image)
        self._know(made, name)
        return made

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        try:
            backend = await self._find(id)
        except NotFound:
            return
        await backend.delete(id, force=force)
        self._where.pop(id, None)
        self._users.pop(id, None)

    async def list(self) -> list[Sandbox]:
        found = []
        for name, backend in self._backends.items():
            for sandbox in await backend.list():
                self._know(sandbox, name)
                found.append(sandbox)
        return found

    def _know(self, sandbox: Sandbox, name: str) -> None:
        self._where[sandbox.id] = name
        self._users[sandbox.id] = sandbox.users

    async def _find(self, id: SandboxId) -> Runtime:
        if id not in self._where:
            await self.list()
        try:
            return self._backends[self._where[id]]
        except KeyError:
            raise NotFound(
                f"no sandbox {id}", code="sandbox-not-found", hint="list what there is", sandbox=id
            ) from None
