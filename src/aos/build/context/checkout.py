"""Copy a build context as another checkout of it would be: what a package must not depend on is different."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["another_checkout"]

_ENTRIES, _BYTES = 20_000, 512 << 20
"""The most that is copied: a second or two."""


def another_checkout(context: Path, target: Path) -> Path | None:
    """Copy all of `context` to `target`, files created in the opposite order, with other dates and modes.

    None, and nothing is copied, when it is larger than 20,000 entries or 512 MiB. Which files are executable, and
    which names are names of one file, is part of what a context says, and kept."""
    found: list[tuple[str, os.stat_result]] = []
    size = 0
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(context / directory) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                path = f"{directory}/{entry.name}" if directory else entry.name
                found.append((path, status))
                size += status.st_size if stat.S_ISREG(status.st_mode) else 0
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
        if len(found) > _ENTRIES or size > _BYTES:
            return None
    target.mkdir(mode=0o700)
    first: dict[tuple[int, int], Path] = {}
    for path, status in sorted(found, key=lambda one: os.fsencode(one[0]), reverse=True):
        copy = target / path
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_ISDIR(status.st_mode):
            copy.mkdir(mode=0o700, exist_ok=True)
        elif stat.S_ISLNK(status.st_mode):
            copy.symlink_to((context / path).readlink())
        elif stat.S_ISREG(status.st_mode):
            known = first.setdefault((status.st_dev, status.st_ino), copy)
            if known is not copy:
                copy.hardlink_to(known)
                continue
            shutil.copyfile(context / path, copy)
            copy.chmod(0o700 if status.st_mode & 0o111 else 0o600)
        # FIFOs, sockets and devices: a build that reads one has failed before
    return target
