"""What the kernel knows of agents and processes. Values; they change by being replaced (machine.py)."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

__all__ = ["Agent", "AgentState", "ExitRecord", "Process", "ProcessState", "Program"]


class AgentState(enum.Enum):
    """created -> running <-> restarting, stopping -> exited."""

    CREATED = "created"
    """Its first process is being made."""
    RUNNING = "running"
    RESTARTING = "restarting"
    """Between two processes."""
    STOPPING = "stopping"
    EXITED = "exited"

    def can_stop(self) -> bool:
        return self is not AgentState.EXITED

    def can_exec(self) -> bool:
        return self is AgentState.RUNNING

    def can_remove(self) -> bool:
        """Without force."""
        return self is AgentState.EXITED


class ProcessState(enum.Enum):
    SPAWNING = "spawning"
    """Journaled; its sandbox may or may not exist yet."""
    RUNNING = "running"
    EXITED = "exited"


class ExitRecord(msgspec.Struct, frozen=True, omit_defaults=False):
    """How a process ended; for ever. Unknown is `lost`, and then neither code nor signal is set."""

    pid: int
    cause: str
    """exited, signaled, oom, limit, policy or lost."""
    code: int | None
    signal: int | None
    shell_code: int
    """What a shell would show: the code, 128 + signal, or 255 when it is lost."""
    started_at: float | None
    """Seconds since the epoch; None for a process that never got to run."""
    finished_at: float | None
    usage: dict[str, float | None] = {}
    """cpu_seconds, memory_peak_bytes and whatever else the backend could tell."""
    tail: str = ""
    """The last lines it wrote."""
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.code != 0


class Process(msgspec.Struct, frozen=True):
    pid: int
    """Counts up over the life of the node; never used again."""
    agent: str
    sandbox: str
    state: ProcessState
    spawned_at: float
    started_at: float | None = None
    exit: ExitRecord | None = None


class Program(msgspec.Struct, frozen=True):
    """What an agent runs: enough to make its sandbox again at any time."""

    reference: str
    digest: str
    """Of the package's manifest, resolved once."""
    package_name: str
    package_version: str
    command: tuple[str, ...]
    """For people; what runs follows from the package and the overrides."""
    runtime: str
    overrides: dict[str, Any]
    """The call's own words (docs/kernel.md, `agent.run`)."""
    stop_signal: str = "TERM"
    terminal: bool = False


class Agent(msgspec.Struct, frozen=True):
    """A supervisor: the desired state of something long-lived. A name belongs to it, not to its processes."""

    id: str
    name: str
    program: Program
    restart: str
    """`never` or `on-failure`."""
    remove: bool
    """Remove it once it has finished (`run --rm`)."""
    created_at: float
    state: AgentState
    pid: int
    """Of its last process."""
    restarts: int = 0
    """Since its creation."""
    failures: int = 0
    """In a row, which decides how long the next restart waits."""
    restart_at: float | None = None
    """When restarting: seconds since the epoch."""
    removing: bool = False
    finished_at: float | None = None
    kill_at: float | None = None
    """When stopping: until then it may finish by itself; None: it may not. Seconds since the epoch."""
