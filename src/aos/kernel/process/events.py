"""What can happen to agents and processes: the words of the journal. State is a fold over them (machine.py).

Fields may be added with a default; a meaning never changes.
"""

from __future__ import annotations

import msgspec

from aos.kernel.process.records import ExitRecord, Program  # noqa: TC001 - msgspec reads the types

__all__ = [
    "AgentCreated",
    "AgentRemoved",
    "Event",
    "ProcessExited",
    "ProcessSignaled",
    "ProcessSpawned",
    "ProcessStarted",
    "RemovalRequested",
    "RestartScheduled",
    "StopRequested",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    at: float
    """Seconds since the epoch."""


class AgentCreated(_Event, frozen=True, kw_only=True, tag="agent.created"):
    name: str
    program: Program
    restart: str
    remove: bool


class ProcessSpawned(_Event, frozen=True, kw_only=True, tag="process.spawned"):
    """It will be made; its sandbox has this id whatever happens."""

    pid: int
    sandbox: str


class ProcessStarted(_Event, frozen=True, kw_only=True, tag="process.started"):
    pid: int


class ProcessSignaled(_Event, frozen=True, kw_only=True, tag="process.signaled"):
    pid: int
    signal: str


class ProcessExited(_Event, frozen=True, kw_only=True, tag="process.exited"):
    pid: int
    exit: ExitRecord


class RestartScheduled(_Event, frozen=True, kw_only=True, tag="agent.restart-scheduled"):
    due: float


class StopRequested(_Event, frozen=True, kw_only=True, tag="agent.stop-requested"):
    kill_at: float | None = None
    """When its time to finish is over: seconds since the epoch."""


class RemovalRequested(_Event, frozen=True, kw_only=True, tag="agent.removal-requested"):
    pass


class AgentRemoved(_Event, frozen=True, kw_only=True, tag="agent.removed"):
    pass


Event = (
    AgentCreated
    | ProcessSpawned
    | ProcessStarted
    | ProcessSignaled
    | ProcessExited
    | RestartScheduled
    | StopRequested
    | RemovalRequested
    | AgentRemoved
)
