"""Which control groups an ordinary user may make: those below one that was given to the user.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst, "Delegation": directory and `cgroup.procs` are the user's,
and processes move only below it. systemd gives `user@UID.service` with all below. On version 1 the OCI runtime joins
every hierarchy, so that a place counts where it is the user's in each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["delegated_group"]


def delegated_group(
    hierarchies: Sequence[Path], own: str | None = None, may_write: Callable[[Path], bool] | None = None
) -> str | None:
    """The uppermost group at or above our own that is ours, as a path below each of the hierarchies' mount points; None
    when there is none. `own`: as in /proc/self/cgroup."""
    text = Path("/proc/self/cgroup").read_text() if own is None else own
    places = {line.split(":", 2)[2].strip("/") for line in text.splitlines() if line}
    if not hierarchies or len(places) != 1:
        return None
    may_write = may_write or _may_write
    parts = places.pop().split("/")
    for count in range(len(parts) + 1):
        group = "/".join(parts[:count])
        if all(may_write(hierarchy / group) for hierarchy in hierarchies):
            return group
    return None


def _may_write(group: Path) -> bool:
    return os.access(group, os.W_OK) and os.access(group / "cgroup.procs", os.W_OK)
