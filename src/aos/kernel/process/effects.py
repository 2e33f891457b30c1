"""What the machine asks the world to do. Performed after the events are in the journal; each may be asked for
again after a crash, so each is idempotent."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Discard", "Effect", "Erase", "Launch", "Signal", "Terminate", "Wake"]


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
    """The stop signal, `grace` seconds, then SIGKILL for everything."""

    pid: int
    grace: float


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `due` at this time (seconds since the epoch)."""

    agent: str
    at: float


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete a sandbox, whatever state it is in."""

    sandbox: str


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete what is kept of an agent that has been removed: its log."""

    agent: str


Effect = Launch | Signal | Terminate | Wake | Discard | Erase
