"""What differs between the OCI runtimes under conmon: each tells it by one object, and the rest of the room is the
same for all of them.

runc, crun and youki share one (aos.runtime.backends.oci), gVisor's runsc has another (aos.runtime.backends.gvisor).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    import signal
    from collections.abc import Mapping

    from aos.ids import SandboxId
    from aos.runtime.backends.supervised.host import Host
    from aos.runtime.backends.supervised.record import Record
    from aos.runtime.protocol import Isolation
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, ProcessInfo, Usage

__all__ = ["Tool"]


class Tool(Protocol):
    backend: str
    """The name of the backend, and of its directories."""
    capabilities: frozenset[str]
    isolation: Isolation
    seccomp: bool
    """Whether it takes a seccomp profile."""
    devices: bool
    """Whether it can give devices of the host to a sandbox."""
    user_namespaces: bool
    """Whether its sandboxes may have user ids of their own."""
    own_loopback: bool
    """Whether it brings up the loopback of a new network namespace. Else it gets one in which that is up."""
    own_group: bool
    """Whether it puts the sandbox into its cgroup (`linux.cgroupsPath`) by itself. Else conmon is started in there,
    with all that comes after it, and leaves again."""

    def find(self) -> str:
        """The path of the program; FailedPrecondition `runtime-missing` names the package."""
        ...

    def options(self, spec: AgentSpec) -> tuple[str, ...]:
        """What stands before the verb in each of its command lines, beside `--root`."""
        ...

    def exec_prefix(self, process: ProcessSpec) -> tuple[str, ...]:
        """What its command line is given to, where conmon calls it for an exec; most need nothing."""
        ...

    def configure(self, config: dict[str, Any], spec: AgentSpec) -> None:
        """Change a configuration (aos.runtime.bundle) to what this runtime wants."""
        ...

    def group_limits(self, limits: Limits) -> Limits:
        """What of the limits is the cgroup's to hold; `configure` has seen to the rest."""
        ...

    def facts(self) -> Mapping[str, str]:
        """For people: its limits."""
        ...

    def waiting(self, host: Host, id: SandboxId, pid: int) -> bool:
        """Whether the entrypoint has not been let go yet; `pid` is that of a live process."""
        ...

    def paused(self, host: Host, id: SandboxId) -> bool: ...

    async def start(self, host: Host, id: SandboxId, record: Record, ended: asyncio.Task[ExitStatus]) -> None:
        """Let the entrypoint run; `ended` is done when the sandbox has ended. Raises ToolFailed."""
        ...

    async def signal(self, host: Host, id: SandboxId, signum: signal.Signals, *, everyone: bool) -> None: ...

    async def resumed(self, host: Host, id: SandboxId) -> None:
        """See to the signals of a pause that has ended; whoever resumed it may not have got to that."""
        ...

    async def processes(self, host: Host, id: SandboxId) -> list[ProcessInfo]:
        """By their pids in the sandbox. Raises ToolFailed."""
        ...

    async def connect(self, host: Host, id: SandboxId, port: int) -> int:
        """As Runtime.connect."""
        ...

    def usage(self, usage: Usage) -> Usage:
        """What of its cgroup's accounts is true of the sandbox."""
        ...

    def forget(self, host: Host, id: SandboxId) -> None:
        """Remove what it keeps of a sandbox whose processes have ended."""
        ...
