"""Single flight between builds: what two builds need at the same time is executed by one of them.

One file for each key, below `<root>/build/locks`, locked by the build that executes the vertex. The lock is the
process's: it ends with it, however it ends, and the next in line has it. Whoever has a flight and a slot of `solve`
executes and waits for no other flight, and a flight is waited for without a slot: no two builds wait for each other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aos.build.workspace.locks import lock_file, try_lock

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Flight", "Flights"]


class Flight:
    """The right to execute one vertex, until its `with` block ends."""

    def __init__(self, file: Path, lock: int) -> None:
        self._file = file
        self._lock = lock

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.unlink(missing_ok=True)  # before it is unlocked: who waits sees that the file is gone
        os.close(self._lock)


class Flights:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def try_begin(self, key: str) -> Flight | None:
        """The flight of `key`; None while another build, or another vertex of this one, has it."""
        file = self._file(key)
        lock = try_lock(file)
        return None if lock is None else Flight(file, lock)

    async def wait(self, key: str) -> Flight:
        """The flight of `key` once nobody else has it. Cancelled at once."""
        file = self._file(key)
        return Flight(file, await lock_file(file))

    def sweep(self) -> None:
        """Remove the files of builds that were killed."""
        for file in self._directory.glob("*"):
            if (flight := self.try_begin(file.name)) is not None:
                with flight:
                    pass

    def _file(self, key: str) -> Path:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory / key
