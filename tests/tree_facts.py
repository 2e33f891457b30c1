"""Everything of a tree that a layer holds, to compare one tree with another."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["facts"]


def facts(root: Path, *, dates: int = 0, epoch: int = 2**40) -> dict[str, tuple[object, ...]]:
    """By path: type, mode, owner, device, content, the names it is linked under, attributes. And with `dates=1` the
    date, in seconds and at most `epoch`, of everything but directories; with `dates=2` of everything."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(directory, name)
            key = str(path.relative_to(root))
            status = path.lstat()
            mode = status.st_mode
            if stat.S_ISSOCK(mode):
                continue
            if stat.S_ISCHR(mode) and status.st_rdev == 0:
                found[key] = ("whiteout",)
                continue
            links = [] if stat.S_ISDIR(mode) else names.setdefault((status.st_dev, status.st_ino), [])
            links.append(key)
            content: object = None
            if stat.S_ISREG(mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(mode):
                content = str(path.readlink())
            xattrs = {
                one: os.getxattr(path, one, follow_symlinks=False)
                for one in sorted(os.listxattr(path, follow_symlinks=False))
            }
            dated = dates == 2 or (dates == 1 and not stat.S_ISDIR(mode))
            date = min(status.st_mtime_ns // 10**9, epoch) if dated else None
            found[key] = (mode, status.st_uid, status.st_gid, status.st_rdev, content, links, xattrs, date)
    for links in names.values():
        links.sort()
    return found
