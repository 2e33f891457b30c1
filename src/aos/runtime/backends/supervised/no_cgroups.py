"""Sandboxes of an ordinary user who was given no control groups: nothing is limited, and limits are refused.

What a group tells elsewhere is found by the sandbox's pid namespace here: whoever is in it, is in the sandbox.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition
from aos.runtime.backends.supervised.processes import read_processes
from aos.runtime.state import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.runtime.spec import Limits

__all__ = ["NoCgroups", "not_delegated"]


class NoCgroups:
    """Cgroups (aos.runtime.cgroups)."""

    version = "none"

    def __init__(self, init: Callable[[str], int | None]) -> None:
        """`init`: the pid of a sandbox's first process, while it lives."""
        self._init = init

    @property
    def hierarchies(self) -> tuple[Path, ...]:
        return ()

    def create(self, group: str, limits: Limits) -> None:
        self.limit(group, limits)

    def limit(self, group: str, limits: Limits) -> None:
        asked = [name for name in ("memory", "cpus", "pids") if getattr(limits, name) is not None]
        if asked:
            raise not_delegated(f"{' and '.join(asked)} cannot be limited")

    def add(self, group: str, pid: int) -> None:
        pass

    def spawn_inside(self, group: str, spawn: Callable[[], int]) -> int:
        return spawn()

    def stay(self) -> None:
        raise PermissionError(errno.EACCES, "this user was given no control groups")

    def pids(self, group: str) -> list[int]:
        init = self._init(group.rpartition("/")[2])
        if init is None:
            return []
        found = []
        with contextlib.suppress(OSError):
            namespace = _pid_namespace(str(init))
            if namespace == _pid_namespace("self"):  # gVisor's: the others are inside of it
                return [init]
            for name in (entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
                with contextlib.suppress(OSError):
                    if _pid_namespace(name) == namespace:
                        found.append(int(name))
        return found

    def usage(self, group: str) -> Usage:
        """Of the processes that are there now: nobody counts those that have ended."""
        processes = read_processes(self.pids(group))
        if not processes:
            return Usage()
        return Usage(
            cpu_seconds=sum(one.cpu_seconds or 0.0 for one in processes),
            memory_bytes=sum(one.memory_bytes or 0 for one in processes),
            pids=len(processes),
        )

    def oom_kills(self, group: str) -> int:
        return 0

    def frozen(self, group: str) -> bool:
        return False

    def remove(self, group: str) -> bool:
        return not self.pids(group)

    def remove_empty(self, parent: str) -> None:
        pass


def not_delegated(what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{what}: this user was given no control groups",
        code="cgroups-not-delegated",
        hint="do without, or have control groups delegated: docs/rootless.md, `aos doctor`",
    )


def _pid_namespace(process: str) -> Path:
    return Path(f"/proc/{process}/ns/pid").readlink()
