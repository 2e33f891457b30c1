"""Which control groups an ordinary user may make: those below one that was given to the user.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst, "Delegation": directory and `cgroup.procs` are the user's,
and processes move only below it. systemd gives `user@UID.service` with all below. On version 1 the OCI runtime joins
every hierarchy, so that a place counts where it is the user's in each.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["asking_systemd", "delegated_group"]


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


def asking_systemd(environ: Mapping[str, str], *, root: Path = Path("/")) -> list[str]:
    """What stands before a command that shall run in a group which this user was given, where we are not in one and the
    user's systemd would make it; empty elsewhere."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    unified = root / "sys/fs/cgroup"
    if not runtime or not (unified / "cgroup.controllers").exists() or delegated_group([unified]) is not None:
        return []
    program = shutil.which("systemd-run")
    if program is None or not Path(runtime, "systemd/private").exists():
        return []
    return [program, "--user", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"]


def _may_write(group: Path) -> bool:
    return os.access(group, os.W_OK) and os.access(group / "cgroup.procs", os.W_OK)
