"""What is done to a step's upper directory before it becomes a layer, so that the layer holds the step's work
and nothing of the machine or the moment it was done on."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from aos.build.glob import glob_to_regex
from aos.content.tree import LayerTree, join, resolve

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["BUILD_DIRECTORY", "RUNTIME_MOUNTS", "settle"]

BUILD_DIRECTORY = "/.aos-build"
"""Where a step finds what only the build needs (tools, caches, settings): mounts, never part of a layer."""

RUNTIME_MOUNTS = (
    "/proc",
    "/dev",
    "/sys",
    "/run/aos",
    "/run",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
)
"""Where a runtime mounts things; the empty places it makes for them in a bare image are not the step's work."""


def settle(
    upper: Path,
    below: LayerTree,
    *,
    epoch: int,
    since_ns: int,
    mounts: Iterable[str] = (),
    drop: Iterable[str] = (),
    restamp: bool = False,
) -> None:
    """Remove mount points, what `drop` names, and directories that say nothing new; date the rest.

    `drop`: patterns of files; the directories that hold them stay. One that ends in '/' is of directories, which
    go with all they hold.

    What changed since `since_ns` (the file system's own clock) gets the date `epoch`, so that a layer tells the
    same time on every machine; what is older keeps its date. `restamp`: everything gets `epoch`.
    """
    for target in (BUILD_DIRECTORY, *mounts, *RUNTIME_MOUNTS):
        _remove_mount_point(upper, below, target)
    files = [glob_to_regex(pattern) for pattern in drop if not pattern.endswith("/")]
    directories = [glob_to_regex(pattern[:-1]) for pattern in drop if pattern.endswith("/")]
    _settle_directory(upper, "", below, files, directories)
    for path in _all_paths(upper):
        status = os.lstat(path)
        if restamp or status.st_mtime_ns >= since_ns:
            os.utime(path, (epoch, epoch), follow_symlinks=False)


def _remove_mount_point(upper: Path, below: LayerTree, target: str) -> None:
    """Remove the empty place of a mount, and the directories that were made for it alone."""
    path = resolve(below, target, follow_last=True)
    while path and below.lstat(path) is None:
        host = upper / path
        try:
            if host.is_symlink() or not host.is_dir():
                if host.is_symlink() or host.stat().st_size:
                    return
                host.unlink()
            elif path == BUILD_DIRECTORY.strip("/"):
                shutil.rmtree(host)
            else:
                host.rmdir()
        except FileNotFoundError:
            pass
        except OSError:  # not empty: the step's own work
            return
        path = path.rpartition("/")[0]


def _settle_directory(
    upper: Path, path: str, below: LayerTree, files: list[re.Pattern[str]], directories: list[re.Pattern[str]]
) -> None:
    directory = os.path.join(upper, path)
    for entry in list(os.scandir(directory)):
        relative = join(path, entry.name)
        if entry.is_dir(follow_symlinks=False):
            if any(pattern.fullmatch(relative) for pattern in directories):
                shutil.rmtree(entry.path)
            else:
                _settle_directory(upper, relative, below, files, directories)
        elif any(pattern.fullmatch(relative) for pattern in files):
            os.unlink(entry.path)
    before = below.lstat(path) if path else None
    if path and (before is None or not stat.S_ISDIR(before.st_mode)):
        _forget_opaque(directory)
    elif path and _says_nothing_new(directory, before):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _forget_opaque(directory: str) -> None:
    """Kernels differ in when they mark a new directory opaque; where nothing lies below it means nothing."""
    for name in os.listxattr(directory):
        if name.endswith(".overlay.opaque"):
            os.removexattr(directory, name)


def _says_nothing_new(directory: str, before: os.stat_result | None) -> bool:
    if before is None:
        return False
    now = os.lstat(directory)
    if (now.st_mode, now.st_uid, now.st_gid) != (before.st_mode, before.st_uid, before.st_gid):
        return False
    return not any(name.endswith(".overlay.opaque") for name in os.listxattr(directory))


def _all_paths(upper: Path) -> Iterator[str]:
    """Everything below, the directory itself last."""
    for directory, names, files in os.walk(upper, topdown=False):
        for name in (*files, *names):
            path = os.path.join(directory, name)
            if name in files or os.path.islink(path):
                yield path
        yield directory
