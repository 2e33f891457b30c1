"""Locked files: who holds one is alive, for the kernel takes the lock away with the process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lock_file", "try_lock"]


def try_lock(file: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> int | None:
    """A descriptor that holds the lock on `file`, which is made; None when somebody else holds it, or removed the
    file meanwhile. `how`: as flock(2)."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, how)
        if os.fstat(lock).st_nlink:
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None


async def lock_file(file: Path, how: int = fcntl.LOCK_EX) -> int:
    """Wait for the lock, and answer with the descriptor that holds it. Can be cancelled at any time.

    The wait is a thread of its own, for flock(2) cannot be ended from outside: one that is not needed any more
    gives back at once what it gets, and keeps no process alive.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[int] = loop.create_future()

    def wait() -> None:
        lock: int | None = None
        error: OSError | None = None
        try:
            while lock is None:
                lock = try_lock(file, how)
        except OSError as caught:
            error = caught

        def give() -> None:
            if not answer.done():
                if lock is not None:
                    answer.set_result(lock)
                else:
                    answer.set_exception(error or OSError())
            elif lock is not None:
                os.close(lock)

        with contextlib.suppress(RuntimeError):  # the loop is closed: so is the process, soon
            loop.call_soon_threadsafe(give)
            return
        if lock is not None:
            os.close(lock)

    threading.Thread(target=wait, name=f"lock {file.name}", daemon=True).start()
    return await answer
