"""Where a running build keeps what it will throw away, tied to a lock that ends with the process.

`<work>/<id>/` holds upper directories and generated files; `<work>/<id>.lock` is locked as long as the build
lives. `sweep` removes what dead builds left, sandboxes included: their names begin with `build-<id>`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from aos.build.workspace.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SANDBOX_PREFIX", "Workspace", "dead_workspaces", "open_workspace", "plain_umask", "remove_tree"]

SANDBOX_PREFIX = "build-"


class Workspace:
    """A directory of one build. Names are given once each, so that directories never collide."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.left = False
        """A sandbox could not be deleted: the lock's file stays, so that the next sweep tries again."""
        self._count = 0

    def fresh(self, name: str) -> Path:
        """A new empty directory, 0755 whatever the umask."""
        self._count += 1
        directory = self.directory / f"{self._count}-{name}"
        directory.mkdir()
        directory.chmod(0o755)
        return directory


@contextlib.contextmanager
def open_workspace(root: Path, id: str) -> Iterator[Workspace]:
    """Make a workspace, and remove it at the end whatever happened; what cannot be removed is for the next sweep."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = None
    while lock is None:  # somebody who sweeps may have taken the new file for a dead build's
        lock = try_lock(root / f"{id}.lock", fcntl.LOCK_EX)
    workspace = Workspace(root / id)
    try:
        workspace.directory.mkdir(mode=0o700)
        yield workspace
    finally:
        with contextlib.suppress(OSError):
            remove_tree(workspace.directory)
            if not workspace.left:
                (root / f"{id}.lock").unlink(missing_ok=True)
        os.close(lock)


@contextlib.contextmanager
def plain_umask() -> Iterator[None]:
    """Umask 022, of the whole process: files that steps make in it do not tell how somebody has set theirs."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def dead_workspaces(root: Path) -> Iterator[list[str]]:
    """The ids of workspaces whose build is gone, locked by us; removed when the block ends without an error."""
    found: dict[str, int] = {}
    try:
        for file in sorted(root.glob("*.lock")) if root.is_dir() else ():
            if (lock := try_lock(file)) is not None:
                found[file.stem] = lock
        yield list(found)
        for id in found:
            remove_tree(root / id)
            (root / f"{id}.lock").unlink(missing_ok=True)
    finally:
        for lock in found.values():
            os.close(lock)


def remove_tree(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
