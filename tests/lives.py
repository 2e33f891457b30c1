"""What happens to agents in a campaign of kills, and which ends of theirs are true after those kills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

__all__ = ["KINDS", "LOST", "POOLED", "Life", "Trouble"]

KINDS = (
    "foreground",
    "detached",
    "killed",
    "stopped",
    "restarting",
    "paused",
    "executing",
    "forced",
    "pooled",
)
POOLED = "echo ran; sleep 0.1; exit 33"
"""What is the same for all that come out of a pool; a mark would need a mount, which no pool has."""
LOST = 255
"""What a shell is told of an exit that nobody knows."""
_MISTAKABLE = (11, 125)
"""Codes that a command has for reasons of its own: no agent is told to end with them."""


@dataclass(slots=True)
class Trouble:
    """What was killed of a sandbox, or while it was being made."""

    agent: bool = False
    """Its entrypoint."""
    conmon: bool = False
    runtime: bool = False
    """A call of the OCI runtime, or the process that it was preparing to become the entrypoint."""
    exec: bool = False
    """Anything of one of its execs."""

    def __bool__(self) -> bool:
        return self.agent or self.conmon or self.runtime

    def __or__(self, other: Trouble) -> Trouble:
        return Trouble(
            self.agent or other.agent,
            self.conmon or other.conmon,
            self.runtime or other.runtime,
            self.exec or other.exec,
        )


@dataclass(frozen=True, slots=True)
class Life:
    """What is going to happen to one agent, and the shell's code that it must end with when nothing of it is killed."""

    name: str
    kind: str
    code: int
    seconds: float
    removed: bool
    """Removed at once; else it stays until the end."""
    options: tuple[str, ...] = ()

    @classmethod
    def drawn(cls, number: int, dice: random.Random) -> Life:
        kind = dice.choice(KINDS)
        known = {"killed": 137, "executing": 137, "forced": 137, "pooled": 33, "restarting": 0}
        code = known.get(kind) or dice.choice([code for code in range(1, 100) if code not in _MISTAKABLE])
        code = 0 if kind == "restarting" else code
        options: tuple[str, ...] = ("--network", "bridge") if dice.random() < 0.3 else ()
        options += ("--userns", "private") if dice.random() < 0.2 else ()
        options = () if kind == "pooled" else options
        return cls(f"life-{number}", kind, code, round(dice.uniform(0, 0.4), 3), dice.random() < 0.5, options)

    @property
    def restarts(self) -> bool:
        return self.kind == "restarting"

    @property
    def script(self) -> str:
        """Writes a line into its mark first, for each time that it runs."""
        if self.kind == "pooled":
            return POOLED
        return f"echo >> /marks/{self.name}; " + {
            "killed": "sleep 1000",
            "executing": "sleep 1000; true",
            "forced": "sleep 1000",
            "stopped": f"trap 'exit {self.code}' TERM; echo ready; while :; do sleep 0.05; done",
            "restarting": f"test -s /marks/{self.name}.2 && exit 0; echo > /marks/{self.name}.2; exit 7",
        }.get(self.kind, f"sleep {self.seconds}; exit {self.code}")

    def is_true(self, exit: dict[str, Any], trouble: Trouble, ran: bool) -> bool:
        """Whether a process of it can have ended so. `ran`: whether its entrypoint may have run at all."""
        cause, code, signal = exit["cause"], exit["code"], exit["signal"]
        if cause == "exited":
            codes = (7, 0) if self.restarts else (self.code,)
            never = code == 125 and "could not be started" in exit["detail"]
            return (code in codes and self.code != 137) or (never and bool(trouble))
        if cause == "signaled":
            return signal == 9 and (self.code == 137 or trouble.agent or trouble.runtime)
        return cause == "lost" and code is None and signal is None and (trouble.conmon or not ran)
