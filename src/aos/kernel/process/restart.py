"""Restart policies: whether a supervisor starts again what has ended, how long it waits, and when it gives up.

The words are docker's (`never` is its `no`); the limit is OTP's restart intensity.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from aos.kernel.process.records import ExitRecord

__all__ = [
    "BACKOFF_FIRST",
    "BACKOFF_LONGEST",
    "HEALTHY_AFTER",
    "POLICIES",
    "RestartLimit",
    "backoff",
    "parse_restart",
    "restarts",
    "starts_at_boot",
]

BACKOFF_FIRST = 0.1
"""Seconds before the first restart; doubles with each failure in a row. As docker's."""
BACKOFF_LONGEST = 60.0
"""Seconds."""
HEALTHY_AFTER = 10.0
"""Seconds: a run that lasted this long clears the count of failures."""
POLICIES = ("never", "on-failure", "always", "unless-stopped")

_POLICY = re.compile(r"(never|on-failure|always|unless-stopped)|on-failure:([1-9][0-9]{0,5})")


class RestartLimit(msgspec.Struct, frozen=True):
    """At most so many restarts in so many seconds, over all replicas; then the agent gives up."""

    restarts: int
    within: float


def parse_restart(text: str) -> tuple[str, int | None]:
    """The policy, and how many failures in a row `on-failure:N` starts again. InvalidArgument `restart-unknown`."""
    match = _POLICY.fullmatch(text)
    if match is None:
        raise InvalidArgument(
            f"no restart policy {text!r:.60}",
            code="restart-unknown",
            hint="never, on-failure, on-failure:N, always or unless-stopped",
        )
    return (match[1], None) if match[1] else ("on-failure", int(match[2]))


def restarts(policy: str, exit: ExitRecord) -> bool:
    """Whether a process that ended like this is started again."""
    name, _ = parse_restart(policy)
    return name in ("always", "unless-stopped") or (name == "on-failure" and exit.failed)


def starts_at_boot(policy: str, *, stopped: bool) -> bool:
    """Whether an agent that had ended runs again once the host has booted; `stopped`: somebody ended it."""
    name, _ = parse_restart(policy)
    return name == "always" or (name == "unless-stopped" and not stopped)


def backoff(failures: int) -> float:
    """Seconds to wait; `failures`: in a row, 0 after a success."""
    doubled: float = BACKOFF_FIRST * 2 ** min(max(failures - 1, 0), 20)
    return min(doubled, BACKOFF_LONGEST)
