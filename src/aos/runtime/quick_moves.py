"""Processes that move between control groups without a wait.

A write to any `cgroup.procs` takes the kernel's cgroup_threadgroup_rwsem for writing. The first after a while waits for
a grace period of RCU, about 10 ms; those that come within the next 10 ms do not, and each makes that time begin anew
(kernel/cgroup/cgroup.c, cgroup_procs_write_start; kernel/rcu/sync.c). Every OCI runtime moves what it starts, and waits.
So whoever is about to call one has a process moved meanwhile that stays where it is: ours.

`favordynmods`, the mount option that spares the wait, is the host's to choose: it is for good, and makes forks slower.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["QuickMoves"]

_PAUSE_SECONDS = 0.006


class QuickMoves:
    """Moves are quick soon after this is entered, and until it is left; any number may be inside."""

    def __init__(self, move: Callable[[], None]) -> None:
        """`move`: one that changes nothing; OSError where it cannot be made."""
        self._move = move
        self._lock = threading.Lock()
        self._inside = 0
        self._moving = False

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if not self._moving:
                self._moving = True
                threading.Thread(target=self._keep_moving, name="quick moves", daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1

    def _keep_moving(self) -> None:
        while self._wanted():
            try:
                self._move()
            except OSError:
                return  # then they take their time, here for ever
            time.sleep(_PAUSE_SECONDS)

    def _wanted(self) -> bool:
        with self._lock:
            self._moving = self._inside > 0
            return self._moving
