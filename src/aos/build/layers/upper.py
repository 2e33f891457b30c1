"""What is done to a step's upper directory before it becomes a layer, so that the layer holds the step's work
and nothing of the machine or the moment it was done on."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.build.context.glob import glob_to_regex
from aos.content.tree import LayerTree, join, resolve

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable
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
) -> bool:
    """Make the directory what unpacking its layer will give: whoever has it needs not unpack.

    Remove mount points, what `drop` names, sockets, directories that say nothing new, and attributes that a layer
    does not hold; date the rest. Return whether all of it is its own: False when a file has a hard link outside, so
    that it may still change.

    `drop`: patterns of files; the directories that hold them stay. One that ends in '/' is of directories, which
    go with all they hold.

    What changed since `since_ns` (the file system's own clock) gets the date `epoch`, so that a layer tells the
    same time on every machine; what is older keeps its date, in whole seconds and not after `epoch`. `restamp`:
    everything gets `epoch`.
    """
    for target in (BUILD_DIRECTORY, *mounts, *RUNTIME_MOUNTS):
        _remove_mount_point(upper, below, target)
    patterns = list(drop)
    return _Settling(
        os.fspath(upper),
        below,
        [glob_to_regex(pattern) for pattern in patterns if not pattern.endswith("/")],
        [glob_to_regex(pattern[:-1]) for pattern in patterns if pattern.endswith("/")],
        epoch,
        0 if restamp else since_ns,
    ).settle()


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


@dataclass(slots=True)
class _Settling:
    upper: str
    below: LayerTree
    files: list[re.Pattern[str]]
    directories: list[re.Pattern[str]]
    epoch: int
    since_ns: int
    links: dict[tuple[int, int], int] = field(default_factory=dict)
    """By file with more than one name: how many names were not seen yet."""

    def settle(self) -> bool:
        pending, seen = [""], []
        while pending:
            path = pending.pop()
            seen.append(path)
            pending += self._entries(path)
        os.chmod(self.upper, 0o755)  # as every layer's root: none says anything of it
        os.chown(self.upper, os.geteuid(), os.getegid())
        for path in reversed(seen):  # what a directory holds before itself: changing it changes the date
            self._directory(path)
        return not any(self.links.values())

    def _host(self, path: str) -> str:
        return f"{self.upper}/{path}" if path else self.upper

    def _entries(self, path: str) -> list[str]:
        """Settle what a directory holds but for the directories, which are returned."""
        inner = []
        with os.scandir(self._host(path)) as found:
            entries = list(found)
        for entry in entries:
            relative = join(path, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if any(pattern.fullmatch(relative) for pattern in self.directories):
                    shutil.rmtree(entry.path)
                else:
                    inner.append(relative)
            elif any(pattern.fullmatch(relative) for pattern in self.files):
                os.unlink(entry.path)
            else:
                self._leaf(entry.path, entry.stat(follow_symlinks=False))
        return inner

    def _leaf(self, host: str, status: os.stat_result) -> None:
        if stat.S_ISSOCK(status.st_mode):
            os.unlink(host)
        elif not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):  # a whiteout is nothing but a name
            if status.st_nlink > 1:
                inode = (status.st_dev, status.st_ino)
                self.links[inode] = self.links.get(inode, status.st_nlink) - 1
            _forget_attributes(host, keep_opaque=False)
            self._date(host, status)

    def _directory(self, path: str) -> None:
        host = self._host(path)
        before = self.below.lstat(path)
        stands_on = before is not None and stat.S_ISDIR(before.st_mode)
        opaque = _forget_attributes(
            host, keep_opaque=stands_on
        )  # without anything below, opaque means nothing
        now = os.lstat(host)
        if path and before is not None and stands_on and not opaque and _same_owner_and_mode(now, before):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(host)
                return
        self._date(host, now)

    def _date(self, host: str, status: os.stat_result) -> None:
        old = status.st_mtime_ns
        seconds = self.epoch if old >= self.since_ns else min(old // 10**9, self.epoch)
        if seconds * 10**9 != old:
            os.utime(host, (seconds, seconds), follow_symlinks=False)


def _forget_attributes(host: str, *, keep_opaque: bool) -> bool:
    """Take away what a layer does not hold: overlay's notes, access lists. Return whether a directory stays opaque.

    Kernels differ in when they mark a new directory opaque."""
    opaque = False
    for name in os.listxattr(host, follow_symlinks=False):
        if keep_opaque and name.endswith(".overlay.opaque"):
            opaque = True
        elif name.startswith(("trusted.", "user.overlay.", "system.posix_acl_")):
            os.removexattr(host, name, follow_symlinks=False)
    return opaque


def _same_owner_and_mode(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
