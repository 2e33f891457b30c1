"""One pool: what sandboxes it is to hold, which wait in it, and what cannot wait at all. Pools are kept by pools.py."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from aos.errors import FailedPrecondition
from aos.kernel.process.restart import backoff
from aos.kernel.syscalls import RunAgent

if TYPE_CHECKING:
    import asyncio

    from aos.errors import AosError
    from aos.kernel.process.records import Program
    from aos.node.processes import Pooled
    from aos.runtime.spec import AgentSpec

__all__ = ["Pool", "Shape", "check_poolable", "of_the_sandbox", "pool_name"]

_OF_THE_AGENT = (
    "name",
    "attach",
    "remove",
    "dry_run",
    "rows",
    "columns",
    "restart",
    "restart_limit",
    "replicas",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """All that makes two sandboxes alike. Only what is wanted exactly so is given away."""

    digest: str
    """Of the package's manifest."""
    spec: AgentSpec
    """As the package, the call and the installation's policy have it now; without a log."""
    backend: str


@dataclass(slots=True, eq=False)
class Pool:
    name: str
    call: RunAgent
    """What runs of it are like; `of_the_sandbox`."""
    size: int
    shape: Shape | None = None
    """None while there can be none: the package is not there, or the policy refuses it."""
    command: tuple[str, ...] = ()
    ready: dict[Pooled, asyncio.Task[None]] = field(default_factory=dict)
    """What waits, the oldest first; and the task that waits for its end."""
    taken: int = 0
    missed: int = 0
    """How often nothing was ready when something was wanted. Both since the node's start."""
    error: AosError | None = None
    """Why there is less than there should be."""
    failures: int = 0
    """In a row."""
    retry_at: float = 0.0
    """Seconds since the epoch."""

    def failed(self, error: AosError, at: float) -> None:
        self.error = error
        self.failures += 1
        self.retry_at = at + backoff(self.failures)

    def worked(self) -> None:
        self.error, self.failures, self.retry_at = None, 0, 0.0

    def record(self, memory: int, pids: int) -> dict[str, Any]:
        """For people (docs/kernel.md); `memory` in bytes and `pids` are what all that waits in it has."""
        plain = msgspec.to_builtins(RunAgent(reference=self.call.reference))
        given = {name: one for name, one in msgspec.to_builtins(self.call).items() if one != plain[name]}
        return {
            "pool": self.name,
            "reference": self.call.reference,
            "digest": self.shape.digest if self.shape else None,
            "runtime": self.shape.backend if self.shape else self.call.runtime,
            "command": self.command,
            "size": self.size,
            "ready": len(self.ready),
            "taken": self.taken,
            "missed": self.missed,
            "memory_bytes": memory,
            "pids": pids,
            "problem": self.error.message if self.error else "",
            "run": given,
        }


def of_the_sandbox(call: RunAgent) -> RunAgent:
    """The call without what it says of an agent: no sandbox is another for it."""
    plain = RunAgent(reference=call.reference)
    return msgspec.structs.replace(call, **{name: getattr(plain, name) for name in _OF_THE_AGENT})


def pool_name(call: RunAgent) -> str:
    """8 hex digits that follow from the call alone."""
    return hashlib.sha256(msgspec.json.encode(call, order="deterministic")).hexdigest()[:8]


def check_poolable(program: Program, spec: AgentSpec) -> None:
    """FailedPrecondition `pool-unfit` for what cannot be made exactly before it is wanted."""
    why = ""
    if program.overrides.get("secrets"):
        why = "it has secrets, which are one agent's"
    elif any(mount.kind != "tmpfs" for mount in spec.mounts):
        why = "it mounts files of the host, and what is at a path may be another thing later"
    elif spec.network.mode != "none":
        why = f"its network is `{spec.network.mode}`, and only a sandbox without one is the same at any time"
    elif spec.confinement.devices:
        why = "it has devices of the host, whose description may change"
    elif "pre_create" in program.hooks:
        why = "its package has a preCreate hook, which runs for an agent and before its sandbox is made"
    if why:
        raise FailedPrecondition(
            f"no sandbox of {program.reference} can be made before it is wanted: {why}",
            code="pool-unfit",
            hint="leave that away, or start such agents without a pool",
            reference=program.reference,
        )
