"""What can happen to agents and processes: the words of the journal. State is a fold over them (machine.py).

Fields may be added with a default; a meaning never changes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from aos.kernel.process.records import ExitRecord, Program  # noqa: TC001 - msgspec reads the types
from aos.kernel.process.restart import RestartLimit  # noqa: TC001

__all__ = [
    "AgentCreated",
    "AgentPaused",
    "AgentRemoved",
    "AgentUnpaused",
    "AgentUpdated",
    "Event",
    "GaveUp",
    "HealthChanged",
    "NetworkRefused",
    "NodeBooted",
    "ProcessCondemned",
    "ProcessExited",
    "ProcessSignaled",
    "ProcessSpawned",
    "ProcessStarted",
    "ReadinessChanged",
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
    replicas: int = 1
    limit: RestartLimit | None = None


class ProcessSpawned(_Event, frozen=True, kw_only=True, tag="process.spawned"):
    """It will be made, in a sandbox of this id whatever happens: one that is made now, or one that waits in a pool."""

    pid: int
    sandbox: str
    replica: int = 0


class ProcessStarted(_Event, frozen=True, kw_only=True, tag="process.started"):
    pid: int


class ProcessSignaled(_Event, frozen=True, kw_only=True, tag="process.signaled"):
    pid: int
    signal: str


class NetworkRefused(_Event, frozen=True, kw_only=True, tag="network.refused"):
    """It tried to reach what its policy does not allow."""

    pid: int
    protocol: str
    """tcp, udp, icmp, or a number of IANA's."""
    destination: str
    port: int | None
    count: int
    """How many such since the event before; not all of them are recorded one by one."""


class ProcessExited(_Event, frozen=True, kw_only=True, tag="process.exited"):
    pid: int
    exit: ExitRecord


class ProcessCondemned(_Event, frozen=True, kw_only=True, tag="process.condemned"):
    """The kernel itself ends it."""

    pid: int
    cause: str
    """`health` or `policy`."""
    detail: str


class HealthChanged(_Event, frozen=True, kw_only=True, tag="process.health"):
    pid: int
    status: str
    """starting, healthy or unhealthy."""
    detail: str = ""


class ReadinessChanged(_Event, frozen=True, kw_only=True, tag="process.readiness"):
    pid: int
    ready: bool
    detail: str = ""


class RestartScheduled(_Event, frozen=True, kw_only=True, tag="agent.restart-scheduled"):
    due: float
    replica: int = 0


class GaveUp(_Event, frozen=True, kw_only=True, tag="agent.gave-up"):
    """It is not started again although its policy says so."""

    reason: str


class AgentPaused(_Event, frozen=True, kw_only=True, tag="agent.paused"):
    pass


class AgentUnpaused(_Event, frozen=True, kw_only=True, tag="agent.unpaused"):
    pass


class AgentUpdated(_Event, frozen=True, kw_only=True, tag="agent.updated"):
    """What is None stays as it is."""

    limits: dict[str, Any] | None = None
    """All of those that were given at its start or since."""
    restart: str | None = None


class StopRequested(_Event, frozen=True, kw_only=True, tag="agent.stop-requested"):
    kill_at: float | None = None
    """When its time to finish is over: seconds since the epoch."""


class RemovalRequested(_Event, frozen=True, kw_only=True, tag="agent.removal-requested"):
    pass


class AgentRemoved(_Event, frozen=True, kw_only=True, tag="agent.removed"):
    pass


class NodeBooted(_Event, frozen=True, kw_only=True, tag="node.booted"):
    """The host has booted since the event before; of no agent."""

    boot: str
    """The kernel's boot id."""


Event = (
    AgentCreated
    | ProcessSpawned
    | ProcessStarted
    | ProcessSignaled
    | NetworkRefused
    | ProcessExited
    | ProcessCondemned
    | HealthChanged
    | ReadinessChanged
    | RestartScheduled
    | GaveUp
    | AgentPaused
    | AgentUnpaused
    | AgentUpdated
    | StopRequested
    | RemovalRequested
    | AgentRemoved
    | NodeBooted
)
