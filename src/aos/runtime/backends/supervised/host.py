"""This host, as the backend sees it: its tools and cgroups, found on first use; and what there is of a sandbox on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos import errors
from aos.errors import FailedPrecondition, NotFound
from aos.ids import SandboxId
from aos.rootless.delegation import delegated_group
from aos.rootless.user import in_user_namespace
from aos.runtime.backends.supervised.conmon import PIDFILE
from aos.runtime.backends.supervised.launch import run_tool, tool_environment
from aos.runtime.backends.supervised.no_cgroups import NoCgroups
from aos.runtime.backends.supervised.record import Record, parent, process_start, read_status
from aos.runtime.cdi import CDI_DIRECTORIES, Edits, find_devices
from aos.runtime.cgroups import detect_cgroups, kill_all
from aos.runtime.id_ranges import IdRanges
from aos.runtime.quick_moves import QuickMoves
from aos.runtime.seccomp import Profiles
from aos.runtime.state import SandboxState

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    from aos.content.store import ContentStore
    from aos.runtime.backends.supervised.tool import Tool
    from aos.runtime.cgroups import Cgroups
    from aos.runtime.network.protocol import Network
    from aos.runtime.spec import Confinement

__all__ = ["Host", "SupervisedConfig", "find_program", "not_found", "wrong_state"]


@dataclass(frozen=True, slots=True)
class SupervisedConfig:
    root: Path
    """Sandboxes live in `root/sandboxes/<backend>`: persistent, so that an exit code survives a reboot."""
    state: Path
    """The runtime's own state: `state/runtime/<backend>`."""
    cgroup_parent: str
    conmon: str = "conmon"
    seccomp: str = ""
    users: str = "host"
    """As AgentSpec's confinement has it, where that says nothing."""
    device_hooks: bool = False
    """Whether devices may bring programs that run on the host."""
    cdi: tuple[Path, ...] = CDI_DIRECTORIES
    """Where the host describes its devices."""
    ids: str = ""
    """The range that sandboxes' own user ids are from (aos.runtime.id_ranges)."""
    create_seconds: float = 60.0
    """How long the runtime may take to create a process before it counts as hung."""
    tool_seconds: float = 30.0
    """How long any other call of it may take."""


class Host:
    """Everything that is known of a sandbox is on disk, in the runtime's state, in cgroups and in /proc."""

    def __init__(
        self, config: SupervisedConfig, tool: Tool, content: ContentStore, network: Callable[[], Network]
    ) -> None:
        """`network`: what connects sandboxes that ask for it, made when one does."""
        self.config = config
        self.network = network
        self.tool = tool
        self.content = content
        self.sandboxes = config.root / "sandboxes" / tool.backend
        self.states = config.state / "runtime" / tool.backend
        self._cgroups: Cgroups | None = None
        self._cgroup_parent = config.cgroup_parent
        self._tools: tuple[str, str] | None = None
        self._profiles = Profiles(config.seccomp)
        self._id_ranges: IdRanges | None = None
        self.quick_moves = QuickMoves(lambda: self.cgroups.stay()) if tool.own_group else nullcontext()

    @property
    def backend(self) -> str:
        return self.tool.backend

    @property
    def users(self) -> str:
        return self.config.users

    @property
    def user_namespaces(self) -> bool:
        return self.tool.user_namespaces

    @property
    def cgroups(self) -> Cgroups:
        if self._cgroups is None:
            self._cgroups = self._own_cgroups() if in_user_namespace() else detect_cgroups()
        return self._cgroups

    def _own_cgroups(self) -> Cgroups:
        """Those that this user was given."""
        found = detect_cgroups()
        given = delegated_group(found.hierarchies)
        if given is None:
            return NoCgroups(lambda id: self.pid(SandboxId(id)))
        self._cgroup_parent = f"{given}/{self.config.cgroup_parent}".lstrip("/")
        return found

    @property
    def cgroup_parent(self) -> str:
        """The group that those of all sandboxes are in."""
        _ = self.cgroups
        return self._cgroup_parent

    def tools(self) -> tuple[str, str]:
        """(OCI runtime, conmon); FailedPrecondition `runtime-missing` names the package."""
        if self._tools is None:
            self._tools = self.tool.find(), find_program(self.config.conmon)
        return self._tools

    @property
    def id_ranges(self) -> IdRanges:
        if self._id_ranges is None:
            self._id_ranges = IdRanges.of_host(self.config.ids)
        return self._id_ranges

    def seccomp_profile(self, confinement: Confinement) -> msgspec.Raw | None:
        """None: system calls are not filtered."""
        return self._profiles.of(confinement) if self.tool.seccomp else None

    def devices(self, names: tuple[str, ...]) -> Edits:
        """NotImplemented `capability-missing`; errors of aos.runtime.cdi."""
        if names and not self.tool.devices:
            raise errors.NotImplemented(
                f"the {self.tool.backend} backend gives no devices of the host to its sandboxes",
                code="capability-missing",
                hint="run it with the oci backend",
                backend=self.tool.backend,
            )
        if not names:
            return Edits()
        return find_devices(names, hooks=self.config.device_hooks, directories=self.config.cdi)

    def state(self, id: SandboxId) -> SandboxState:
        directory = self.directory(id)
        if read_status(directory) is not None:
            return SandboxState.STOPPED
        record = Record.read(directory)
        if record is None:
            return SandboxState.CREATING
        if not record.conmon_lives():
            return SandboxState.STOPPED
        pid = self.pid(id)
        if pid is None:
            # Its process has ended when there was one; conmon stays for the moment that the exit code takes.
            return SandboxState.RUNNING if (directory / PIDFILE).exists() else SandboxState.CREATING
        if self.tool.waiting(self, id, pid):
            return SandboxState.CREATED
        return SandboxState.PAUSED if self.tool.paused(self, id) else SandboxState.RUNNING

    def pid(self, id: SandboxId) -> int | None:
        try:
            pid = int((self.sandboxes / id / PIDFILE).read_text())
        except (OSError, ValueError):
            return None
        return pid if process_start(pid) is not None else None

    async def running(self, id: SandboxId) -> int | None:
        return self.pid(id)

    def init(self, id: SandboxId) -> int | None:
        """As `pid`, and to be signalled: only while it is conmon's child, for the kernel gives numbers again."""
        pid, record = self.pid(id), Record.read(self.sandboxes / id)
        return pid if pid is not None and record is not None and parent(pid) == record.conmon else None

    def directory(self, id: SandboxId) -> Path:
        directory = self.sandboxes / id
        if not directory.is_dir():
            raise not_found(id)
        return directory

    def payload(self, id: SandboxId) -> str | None:
        """The group that the OCI runtime puts a sandbox into; None where there are none."""
        return None if self.cgroups.version == "none" else f"/{self.group(id)}/payload"

    def group(self, id: SandboxId) -> str:
        return f"{self.cgroup_parent}/{id}"

    async def call(
        self,
        id: SandboxId,
        verb: str,
        *arguments: str,
        after: tuple[str, ...] = (),
        everything: bool = False,
    ) -> tuple[int, str]:
        """Call the OCI runtime that made the sandbox: (exit code, what it said on standard error, or with `everything`
        on standard output, too)."""
        record = Record.read(self.sandboxes / id)
        runtime, options = (record.runtime, record.options) if record else (self.tools()[0], ())
        argv = [runtime, "--root", str(self.states), *options, verb, *arguments, id, *after]
        try:
            return await run_tool(
                argv, tool_environment(), seconds=self.config.tool_seconds, everything=everything
            )
        finally:
            if not (self.sandboxes / id).exists():  # deleted meanwhile; a call may make what that had removed
                self.tool.forget(self, id)

    async def kill_payload(self, id: SandboxId) -> None:
        group, pid, record = self.group(id), self.init(id), Record.read(self.sandboxes / id)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # the init of a pid namespace takes all with it
        kill_all(self.cgroups, group, spare=record.conmon if record else 0)
        if self.cgroups.frozen(group):
            await self.call(id, "resume")


def find_program(*names: str, install: str = "") -> str:
    """The path of the first that is installed; FailedPrecondition `runtime-missing` says how to `install` it, which is
    by a package of its name where nothing else is said."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        name = Path(names[0]).name
        raise FailedPrecondition(
            f"{names[0]} is not installed",
            code="runtime-missing",
            hint=(install or f"install it: `apt-get install {name}`, `dnf install {name}`")
            + "; `aos doctor` checks the rest",
            tool=names[0],
        )
    return found


def not_found(id: SandboxId) -> NotFound:
    return NotFound(f"no sandbox {id}", code="sandbox-not-found", hint="list what there is", sandbox=id)


def wrong_state(id: SandboxId, state: SandboxState, verb: str, hint: str | None = None) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot {verb} sandbox {id}: it is {state.value}", code="sandbox-state", hint=hint, sandbox=id
    )
