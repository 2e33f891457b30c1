"""The seam between a backend and what connects its sandboxes.

`reserve` first, before anything is made; `enter` in the thread that becomes the sandbox's parent; `Inside.connect`
while the sandbox is being made; `release` when it has ended, or was not made after all. The namespace belongs to the
processes in it, conmon first of all: it needs no cleaning, whoever is killed.

bridge.py is root's; user.py puts the same bridge into a namespace of an ordinary user's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from aos.runtime.spec import NetworkSpec

__all__ = ["Connection", "Inside", "Network"]


class Inside(Protocol):
    """A network namespace that was made for a sandbox, and has nothing in it yet."""

    def connect(self) -> None:
        """Make links, addresses, limits and the policy; the sandbox may start on return."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Connection:
    """What a sandbox was promised."""

    hosts: str
    """Lines for its hosts(5), `{name}` in the place of its name."""
    resolv_conf: str


class Network(Protocol):
    """Blocking; for any thread."""

    def reserve(self, directory: Path, spec: NetworkSpec) -> Connection:
        """Promise addresses and ports to the sandbox with this directory; durable on return.

        ResourceExhausted `network-pool-exhausted`, AlreadyExists `port-in-use`, FailedPrecondition
        `network-pool-taken` and `network-failed`."""
        ...

    def enter(self, directory: Path, namespace: int | None = None) -> Inside:
        """Take the calling thread into a new network namespace, for good: the one behind the descriptor `namespace`,
        which has nothing in it; None: one of the thread's own user namespace."""
        ...

    def release(self, directory: Path) -> None:
        """Take back what was promised, if anything was (still)."""
        ...
