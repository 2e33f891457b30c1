"""What the kernel knows of agents and processes. Values; they change by being replaced (machine.py)."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from aos.kernel.process.health import Hook, Probe  # noqa: TC001 - msgspec reads the types
from aos.kernel.process.restart import RestartLimit  # noqa: TC001

__all__ = ["Agent", "AgentState", "ExitRecord", "Process", "ProcessState", "Program", "Replica"]


class AgentState(enum.Enum):
    """created -> running <-> restarting or paused, stopping -> exited. It follows from its processes and from what
    was asked of it (machine.py)."""

    CREATED = "created"
    """Its first processes are being made."""
    RUNNING = "running"
    """At least one of its processes runs."""
    PAUSED = "paused"
    RESTARTING = "restarting"
    """Between two processes."""
    STOPPING = "stopping"
    EXITED = "exited"

    def can_stop(self) -> bool:
        return self is not AgentState.EXITED

    @property
    def lives(self) -> bool:
        """It may have processes."""
        return self not in (AgentState.CREATED, AgentState.EXITED)

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
    """exited, signaled, oom, limit, policy, health or lost."""
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
        return self.code != 0 or self.cause in ("health", "policy")


class Process(msgspec.Struct, frozen=True):
    pid: int
    """Counts up over the life of the node; never used again."""
    agent: str
    sandbox: str
    state: ProcessState
    spawned_at: float
    started_at: float | None = None
    exit: ExitRecord | None = None
    replica: int = 0
    condemned: str = ""
    """Why the kernel itself ends it: `health` or `policy`; that is then the cause of its end."""
    condemned_detail: str = ""
    health: str = ""
    """`starting`, `healthy` or `unhealthy`; empty when nothing asks."""
    ready: bool | None = None
    """None when nothing asks."""

    @property
    def lives(self) -> bool:
        return self.state is not ProcessState.EXITED


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
    grace: float = 10.0
    """Seconds between the stop signal and the end, where a stop does not say."""
    health: Probe | None = None
    readiness: Probe | None = None
    hooks: dict[str, tuple[Hook, ...]] = {}
    """By event: `pre_create`, `post_create`, … (docs/agentfile.md)."""


class Replica(msgspec.Struct, frozen=True):
    """One of a supervisor's places: it holds one process after the other."""

    pid: int = 0
    """Of its last process."""
    failures: int = 0
    """In a row, which decides how long the next restart waits."""
    restart_at: float | None = None
    """When its next process is due: seconds since the epoch."""


class Agent(msgspec.Struct, frozen=True):
    """A supervisor: the desired state of something long-lived. A name belongs to it, not to its processes."""

    id: str
    name: str
    program: Program
    restart: str
    """`never`, `on-failure`, `on-failure:N`, `always` or `unless-stopped`."""
    remove: bool
    """Remove it once it has finished (`run --rm`)."""
    created_at: float
    state: AgentState
    replicas: tuple[Replica, ...]
    limit: RestartLimit | None = None
    restarts: int = 0
    """Since its creation, of all replicas."""
    recent: tuple[float, ...] = ()
    """When its last restarts were decided, as far as `limit` looks back."""
    stopped: bool = False
    """Somebody ended it, and nobody has started it since."""
    gave_up: str = ""
    """Why it is not started again although its policy says so."""
    paused: bool = False
    removing: bool = False
    finished_at: float | None = None
    kill_at: float | None = None
    """When stopping: until then it may finish by itself; None: it may not. Seconds since the epoch."""

    @property
    def pid(self) -> int:
        """Of its first replica's last process."""
        return self.replicas[0].pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Of its replicas' last processes; a replica that has none yet is left out."""
        return tuple(replica.pid for replica in self.replicas if replica.pid)

    @property
    def ending(self) -> bool:
        """Nothing of it is started again."""
        return self.stopped or self.removing or bool(self.gave_up)
