"""Cache mounts: directories that steps share from build to build, and that are in no layer.

    <root>/build/mounts/<kind>-<hash of the id>/
        about.json      whose it is
        0/  0.lock      a directory, and who uses it now: locked as long as a step has it mounted
        1/  1.lock      more of them, where steps with `sharing: private` ran at the same time

Kinds keep what steps may name (`run`) apart from what the build's own tools use (`pip`, `apt`, `plugin`).
Whatever was killed, a lock is gone with its process, and the directory is as its user left it: it is for the tool
that fills a cache to survive that. The time of last use is the lock's modification time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aos.build.workspace.locks import lock_file, try_lock
from aos.build.workspace.replace import replace_file
from aos.build.workspace.workspace import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

__all__ = ["CacheMountUse", "Sharing", "cache_mounts", "remove_cache_mount", "size_on_disk", "take"]

Kind = Literal["run", "pip", "apt", "plugin"]
Sharing = Literal["shared", "private", "locked"]
_ABOUT = "about.json"
_HASH_DIGITS = 16


@dataclass(frozen=True, slots=True)
class CacheMountUse:
    """One directory of a cache mount."""

    kind: str
    id: str
    directory: Path
    last_used: float
    """Seconds since 1970: when a step last began or ended to use it."""
    in_use: bool


@contextlib.asynccontextmanager
async def take(
    mounts: Path,
    kind: Kind,
    id: str,
    sharing: Sharing,
    *,
    owner: tuple[int, int] = (0, 0),
    waiting: Callable[[], None] | None = None,
) -> AsyncIterator[Path]:
    """Use the directory of a cache for a while: together with others, alone in one of several, or alone.

    `mounts`: `<root>/build/mounts`. `owner`: whose a new directory becomes. `waiting` is called before a wait.
    """
    place = mounts / _place(kind, id)
    lock = None
    while lock is None:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile: once more
            _describe(place, kind, id)
            lock, directory = await _lock(place, sharing, waiting)
    try:
        if not directory.exists():
            directory.mkdir()
            os.chown(directory, *owner)
            directory.chmod(0o1777)  # steps of several users may share it; nobody else of the host gets here
        os.utime(lock)
        yield directory
    finally:
        os.utime(lock)
        os.close(lock)


async def _lock(place: Path, sharing: Sharing, waiting: Callable[[], None] | None) -> tuple[int, Path]:
    if sharing == "private":
        number = 0
        while (lock := try_lock(place / f"{number}.lock")) is None:
            number += 1
        return lock, place / str(number)
    how = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
    file = place / "0.lock"
    lock = try_lock(file, how | fcntl.LOCK_NB)
    if lock is None:
        if waiting is not None:
            waiting()
        lock = await lock_file(file, how)
    return lock, place / "0"


def cache_mounts(mounts: Path) -> tuple[CacheMountUse, ...]:
    """All there are, sorted by kind and id. Their sizes are for who wants them (`size_on_disk`)."""
    return tuple(sorted(_all(mounts), key=lambda use: (use.kind, use.id, use.directory.name)))


def _all(mounts: Path) -> Iterator[CacheMountUse]:
    for lock in mounts.glob("*/*.lock"):
        try:
            about = json.loads((lock.parent / _ABOUT).read_bytes())
            kind, id = str(about["kind"]), str(about["id"])
        except (OSError, ValueError, KeyError, TypeError):
            kind, id = lock.parent.name.partition("-")[0], lock.parent.name
        with contextlib.suppress(FileNotFoundError):
            used = lock.stat().st_mtime
            yield CacheMountUse(kind, id, lock.with_suffix(""), used, _in_use(lock))


def remove_cache_mount(use: CacheMountUse) -> bool:
    """Remove the directory; False when a step uses it."""
    lock_name = use.directory.with_name(use.directory.name + ".lock")
    try:
        lock = try_lock(lock_name)
    except FileNotFoundError:
        return True
    if lock is None:
        return False
    try:
        remove_tree(use.directory)
        lock_name.unlink(missing_ok=True)
    finally:
        os.close(lock)
    with contextlib.suppress(OSError):  # others are there, or somebody is making one
        if not any(use.directory.parent.glob("*.lock")):
            (use.directory.parent / _ABOUT).unlink(missing_ok=True)
            use.directory.parent.rmdir()
    return True


def size_on_disk(directory: Path) -> int:
    """Bytes that everything below takes; what vanishes meanwhile counts as nothing."""
    total = 0
    pending = [os.fspath(directory)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return total


def _in_use(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _place(kind: Kind, id: str) -> str:
    return f"{kind}-{hashlib.sha256(id.encode(errors='surrogateescape')).hexdigest()[:_HASH_DIGITS]}"


def _describe(place: Path, kind: Kind, id: str) -> None:
    """Make the place, and say whose it is: written whole and renamed, so that a kill cannot tear it."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.mkdir(mode=0o700, exist_ok=True)
    if not (place / _ABOUT).exists():
        replace_file(place / _ABOUT, json.dumps({"kind": kind, "id": id}).encode())
