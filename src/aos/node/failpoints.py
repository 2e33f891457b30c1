"""Places where a test can kill the daemon: `AOS_FAILPOINT=<name>[:<n>]` makes the n-th passage the last act."""

from __future__ import annotations

import os
import signal

__all__ = ["FAILPOINTS", "failpoint"]

FAILPOINTS = ("before-journal", "after-journal", "after-create", "after-start", "after-exit")

_name, _, _count = os.environ.get("AOS_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
