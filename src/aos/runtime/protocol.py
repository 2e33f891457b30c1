"""The seam between AOS and whatever isolates: one small asynchronous protocol.

Lifecycle: `create` makes the environment and stops before the entrypoint runs; `start` lets it run; `wait`
answers once it ended; `delete` removes every trace (mounts, cgroups, namespaces, files). A sandbox outlives
the object that made it: another instance over the same state directory sees it in `list`, can `wait` for it
and gets the true exit code, or `lost` where nobody can know it.

Errors, the same for every backend:
    NotFound `sandbox-not-found`             no sandbox has that id
    AlreadyExists `sandbox-exists`           create with an id in use
    FailedPrecondition `sandbox-state`       the state does not allow the call (message names both)
    FailedPrecondition `runtime-missing`     a tool is not installed; the hint names the package
    InvalidArgument `spec-invalid`, `user-unknown`, `mount-source-missing`
    FailedPrecondition `entrypoint-not-found` (126/127 in `exit_status`), raised by `create`/`start`/`exec`
    NotImplemented `capability-missing`      the backend lacks it; names the backend and the alternative
    Internal `runtime-failed`                the tool failed; its last words are in the message
A call that is cancelled leaves either the state before it or the state after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, ProcessInfo, Sandbox, Usage

__all__ = ["Exec", "Isolation", "Runtime", "RuntimeInfo", "Stdio"]

Isolation = Literal["none", "namespaces", "kernel", "vm"]
"""What stands between a sandbox and the host, from the weakest: nothing; the host kernel's namespaces and filters; a
kernel of its own in user space; a virtual machine."""


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a backend is and can do."""

    name: str
    version: str
    capabilities: frozenset[str]
    """Among: attach, exec, prepare (an exec before the entrypoint runs), files (a root file system, mounts, users), copy
    (`root`), rename, top (`processes`), connect (to its ports), logs, limits, pause, pause-signals (they wait for its
    end), update, update-pids (of a sandbox that runs), checkpoint, restore, terminal, stats, network-none,
    network-host."""
    detail: Mapping[str, str]
    """For people: paths and versions of the tools behind it, and its limits."""
    isolation: Isolation = "namespaces"


@dataclass(frozen=True, slots=True)
class Stdio:
    """Ends of a process's standard streams, owned (and to be closed) by whoever received this object.

    `socket` is a connected AF_UNIX SOCK_SEQPACKET descriptor that speaks conmon's attach protocol: each
    packet from the process is one byte (2: standard output, 3: standard error) followed by data; what is
    sent to it is standard input; `shutdown(SHUT_WR)` closes it (but see `AgentSpec.leave_stdin_open`); end of file: the
    process has ended and everything it wrote was delivered. With a terminal everything arrives as 2.
    `control` is a descriptor open for writing that takes `1 <rows> <columns>\\n` to resize the terminal, or
    None without a terminal.
    """

    socket: int
    control: int | None = None


@dataclass(frozen=True, slots=True)
class Exec:
    """An additional process that was created in a running sandbox, and not yet started."""

    id: str
    stdio: Stdio | None


class Runtime(Protocol):
    async def info(self) -> RuntimeInfo: ...

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        """Make the environment; state `created` on return. Nothing is left behind when it raises."""
        ...

    async def start(self, id: SandboxId) -> None:
        """Let the entrypoint run."""
        ...

    async def wait(self, id: SandboxId) -> ExitStatus:
        """Return once the entrypoint has ended; at once if it already has. Never raises for a lost one."""
        ...

    async def signal(self, id: SandboxId, signum: signal.Signals, *, everyone: bool = False) -> None:
        """Deliver to the entrypoint, or to every process of the sandbox. A stopped sandbox: no effect."""
        ...

    async def pause(self, id: SandboxId) -> None: ...

    async def resume(self, id: SandboxId) -> None: ...

    async def update(self, id: SandboxId, limits: Limits) -> None: ...

    async def rename(self, id: SandboxId, hostname: str) -> None:
        """Give a sandbox another host name, between `create` and `start`: what was made before anybody knew whose it
        would be is told from then on, also in its /etc/hosts. FailedPrecondition `sandbox-state` in any other state."""
        ...

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        """Prepare another process. It does not run before `start_exec`, so that nothing it says is missed."""
        ...

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        """Let an exec run, and return once it has ended (also when the sandbox dies: within 1 s). Refused while the sandbox
        is paused, and can be asked for again."""
        ...

    async def attach(self, id: SandboxId) -> Stdio:
        """Connect to the entrypoint's streams. After `create` and before `start`: nothing is missed."""
        ...

    async def logs(self, id: SandboxId) -> Path:
        """The log file in the Kubernetes CRI format: `<RFC 3339 time> <stdout|stderr> <P|F> <text>`.

        `AgentSpec.log`, or a file that is present from `create` until `delete`."""
        ...

    async def stats(self, id: SandboxId) -> Usage: ...

    async def processes(self, id: SandboxId) -> list[ProcessInfo]:
        """What runs in it, the entrypoint first."""
        ...

    async def root(self, id: SandboxId) -> int:
        """A descriptor (O_PATH) of its root directory, as its processes see it with all their mounts. Links in it may
        lead anywhere: whoever walks from it resolves inside of it (openat2, RESOLVE_IN_ROOT)."""
        ...

    async def connect(self, id: SandboxId, port: int) -> int:
        """A descriptor of a connected stream to a TCP port of its loopback, whatever its network. OSError as of
        connect(2)."""
        ...

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        """Write what its processes are into the directory `image`, which is made. A paused sandbox stays paused; one that
        runs goes on with `leave_running`, else it ends. Files and what is shared with the host are not in the image."""
        ...

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        """As `create`, but `start` lets go on what the image holds. The image can be used again, also at the same time.
        `spec` names the same root file system and mounts; what the processes had written is the caller's to bring."""
        ...

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        """Remove every trace. `force` kills first. An id that does not exist: no effect."""
        ...

    async def list(self) -> list[Sandbox]:
        """All sandboxes of this backend on this node, as they are now."""
        ...
