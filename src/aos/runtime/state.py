"""The life of a sandbox, and how it ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from aos.ids import SandboxId

__all__ = ["Cause", "ExitStatus", "ProcessInfo", "Sandbox", "SandboxState", "Usage"]

Cause = Literal["exited", "signaled", "oom", "limit", "policy", "lost"]


class SandboxState(enum.Enum):
    """created -> running <-> paused -> stopped; `deleted` is the absence of the sandbox."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"

    def can_start(self) -> bool:
        return self is SandboxState.CREATED

    def can_exec(self) -> bool:
        """In one that is created, too: what prepares it runs before its entrypoint does."""
        return self in (SandboxState.CREATED, SandboxState.RUNNING)

    def can_signal(self) -> bool:
        return self in (SandboxState.CREATED, SandboxState.RUNNING, SandboxState.PAUSED)

    def can_pause(self) -> bool:
        return self is SandboxState.RUNNING

    def can_resume(self) -> bool:
        return self is SandboxState.PAUSED

    def can_checkpoint(self) -> bool:
        return self in (SandboxState.RUNNING, SandboxState.PAUSED)

    def can_update(self) -> bool:
        return self.can_signal()

    def can_delete(self) -> bool:
        """Without force."""
        return self in (SandboxState.CREATED, SandboxState.STOPPED)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox has used so far; None where the host cannot tell."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    pids: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of a sandbox, as the sandbox numbers it; None where its kernel does not tell."""

    pid: int
    ppid: int
    user: str
    """Its number in the sandbox."""
    command: str
    """With its arguments where the kernel tells them."""
    started_at: float | None = None
    """Seconds since the epoch."""
    cpu_seconds: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. Exactly one of `code` and `signal` is set, except for `lost`: neither is known."""

    cause: Cause
    code: int | None = None
    signal: int | None = None
    finished_at: float | None = None
    """Seconds since the epoch; None when unknown."""
    usage: Usage = field(default_factory=Usage)
    detail: str = ""
    """One sentence for people, e.g. why it is lost."""

    @property
    def shell_code(self) -> int:
        """What a shell would show: the code, 128 + signal, or 255 when it is lost."""
        if self.code is not None:
            return self.code
        return 128 + self.signal if self.signal is not None else 255


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A backend's answer to `list` and `create`."""

    id: SandboxId
    state: SandboxState
    pid: int | None = None
    """Of the entrypoint, in the host's pid namespace; None before create has finished and after the exit."""
    exit: ExitStatus | None = None
    users: tuple[int, ...] | str = ""
    """Whose user ids it has: (first, how many) of the host's ids that are its own, or why it has the host's; empty
    where the backend does not say."""
