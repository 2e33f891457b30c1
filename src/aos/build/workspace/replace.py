"""Replace a small file as a whole: who reads it sees the old one or the new one, whatever is killed meanwhile.

The new one is written under a private name, locked as long as its writer lives, so that `sweep_temporary` knows what
a killed build has left. Not synced: what is lost with the power is made again.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["replace_file", "sweep_temporary"]

_PREFIX = ".new-"


def replace_file(file: Path, data: bytes, mode: int = 0o600) -> None:
    """Raise OSError as the system has it; then the old file is still there."""
    while True:
        temporary = file.with_name(_PREFIX + secrets.token_hex(8))
        with temporary.open("xb", buffering=0) as writing:
            fcntl.flock(writing, fcntl.LOCK_EX)
            if not temporary.exists():  # taken for a dead build's before it was locked
                continue
            try:
                os.fchmod(writing.fileno(), mode)
                view = memoryview(data)
                while view:
                    view = view[writing.write(view) :]
                temporary.replace(file)
                return
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


def sweep_temporary(directory: Path) -> None:
    """Remove what writers that are dead have left in a directory and its subdirectories, and no deeper."""
    for pattern in (f"{_PREFIX}*", f"*/{_PREFIX}*"):
        for path in directory.glob(pattern):
            with suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                path.unlink()
