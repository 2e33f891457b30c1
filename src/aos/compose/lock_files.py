"""The lock of an Agentfile, and holding a build to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from aos.agentfile.lock import Lock
    from aos.build.lock.locked import LockUse


__all__ = ["honoured", "lock_of"]


def honoured(lock: Lock | None) -> LockUse | None:
    if lock is None:
        return None
    from aos.build.lock.locked import Honour

    return Honour(lock)


def lock_of(context: Path, file: Path | None) -> tuple[Path, Lock | None]:
    """Where the lock of an Agentfile lies, and what it says if it is there; the file of none is not looked into."""
    from pathlib import Path

    from aos.build import find_agentfile

    path = Path(f"{file or find_agentfile(context)}.lock")
    if not (path.exists() or path.is_symlink()):
        return path, None
    from aos.agentfile.lock import load_lock

    return path, load_lock(path)
