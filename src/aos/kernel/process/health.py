"""Health and readiness: what is asked, how often, and what a row of answers means. No clock, no I/O.

Terms and rules are Kubernetes' and docker's: so many failures in a row are needed, one success clears them, and
failures do not count before the start period is over.
"""

from __future__ import annotations

import msgspec

__all__ = ["Hook", "HttpTarget", "Probe", "Streak"]

_EAGER = 1.0
"""Seconds: until the first success it is asked at least this often, so that it is not long known too late."""


class HttpTarget(msgspec.Struct, frozen=True):
    port: int
    path: str = "/"


class Probe(msgspec.Struct, frozen=True):
    """As a package's definition has it (agentfile.definition.Probe); exactly one of `exec`, `http` and `tcp`."""

    exec: tuple[str, ...] = ()
    http: HttpTarget | None = None
    tcp: int = 0
    interval: float = 10.0
    timeout: float = 5.0
    retries: int = 3
    start_period: float = 0.0
    on_failure: str = "restart"


class Hook(msgspec.Struct, frozen=True):
    """A command at a moment of an agent's life (agentfile.definition.Hook)."""

    exec: tuple[str, ...]
    where: str = "sandbox"
    user: str = ""
    timeout: float = 30.0
    on_failure: str = "fail"


class Streak:
    """The answers of one process to one probe. Times are seconds since its start."""

    def __init__(self, probe: Probe, good: bool | None = None) -> None:
        """`good`: what was known of it before, None at its start."""
        self._probe = probe
        self.good = good
        """None: not known yet."""
        self.failures = 0
        """In a row, as far as they count."""

    def pause(self) -> float:
        """Seconds until it is asked again."""
        return min(self._probe.interval, _EAGER) if self.good is None else self._probe.interval

    def answered(self, good: bool, at: float) -> bool | None:
        """Take an answer; return what is known now."""
        if good:
            self.good, self.failures = True, 0
        elif self.good is True or at >= self._probe.start_period:
            self.failures += 1
            if self.failures >= self._probe.retries:
                self.good = False
        return self.good
