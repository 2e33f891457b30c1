"""What the machine asks the world to do. Performed after the events are in the journal; each may be asked for
again after a crash, so each is idempotent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aos.kernel.process.records import Program

__all__ = ["Discard", "Effect", "Erase", "Freeze", "Launch", "Signal", "Terminate", "Thaw", "Wake"]


@dataclass(frozen=True, slots=True)
class Launch:
    """Make the sandbox and let it run; answer with `launched` or `exited`."""

    pid: int


@dataclass(frozen=True, slots=True)
class Signal:
    pid: int
    signal: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """The stop signal, `grace` seconds, then SIGKILL for everything; also for what is paused."""

    pid: int
    grace: float


@dataclass(frozen=True, slots=True)
class Freeze:
    """Pause its sandbox."""

    pid: int


@dataclass(frozen=True, slots=True)
class Thaw:
    pid: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `due` at this time (seconds since the epoch)."""

    agent: str
    at: float
    replica: int = 0


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete a sandbox, whatever state it is in."""

    sandbox: str


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete all that is left of an agent that has been removed: its sandboxes, its log."""

    agent: str
    name: str
    sandboxes: tuple[str, ...]
    program: Program


Effect = Launch | Signal | Terminate | Freeze | Thaw | Wake | Discard | Erase
