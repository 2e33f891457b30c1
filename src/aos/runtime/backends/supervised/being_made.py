"""Making a sandbox and removing it exclude each other: whoever makes one holds a lock on its directory, which the kernel
takes back from the killed. Who removes it waits for the end of that, so nothing is made any more that nobody removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from aos.errors import AlreadyExists
from aos.ids import SandboxId
from aos.runtime.backends.supervised.host import not_found

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["BeingMade", "until_made"]

_PAUSE_SECONDS = 0.005


class BeingMade:
    """From the making of its directory until `end`."""

    def __init__(self, directory: Path) -> None:
        """AlreadyExists `sandbox-exists`; NotFound `sandbox-not-found` where somebody removes it already."""
        id = SandboxId(directory.name)
        try:
            directory.mkdir(parents=True, mode=0o700)
        except FileExistsError as error:
            raise AlreadyExists(
                f"sandbox {id} exists", code="sandbox-exists", hint="delete it first", sandbox=id
            ) from error
        try:
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise not_found(id) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise not_found(id) from error
            raise

    def end(self) -> None:
        if self._descriptor != -1:
            # Not only closed: a process that is cloned just now may have it for a moment, too.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1


async def until_made(directory: Path, hasten: Callable[[], object]) -> None:
    """Wait until nobody makes it; `hasten` is called meanwhile, again and again."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return
                hasten()
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            os.close(descriptor)
