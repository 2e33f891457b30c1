"""File trees as a copy reads them: a build context, or the merged layers of a stage. Nothing is mounted.

Paths are relative, `/` between components, "" the root, and hold no link in a parent position: `resolve` makes
them so. Names that are not UTF-8 pass through (surrogateescape, as `os.fsdecode` has it).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ContextTree", "LayerTree", "Tree", "join", "resolve"]

_MAX_LINKS = 40  # as Linux: path_resolution(7)


class Tree(Protocol):
    """A read-only view; every path is inside it by construction."""

    @property
    def confined(self) -> bool:
        """A link that leads out is an error; otherwise "/" is the tree's own root, as after chroot."""
        ...

    def lstat(self, path: str) -> os.stat_result | None:
        """None when nothing is there."""
        ...

    def readlink(self, path: str) -> str: ...

    def names(self, path: str) -> list[str]:
        """What the directory holds, sorted by bytes."""
        ...

    def open(self, path: str) -> int:
        """A descriptor of a regular file, opened without following any link."""
        ...


def join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


@dataclass(frozen=True, slots=True)
class ContextTree:
    """One directory of the host."""

    root: Path
    confined: bool = True

    def lstat(self, path: str) -> os.stat_result | None:
        try:
            return os.lstat(self._host(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def readlink(self, path: str) -> str:
        return os.readlink(self._host(path))

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(self._host(path)), key=os.fsencode)

    def open(self, path: str) -> int:
        *parents, name = path.split("/")
        directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for parent in parents:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                child = os.open(parent, flags, dir_fd=directory)
                os.close(directory)
                directory = child
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=directory)
        finally:
            os.close(directory)

    def _host(self, path: str) -> str:
        return f"{os.fspath(self.root)}/{path}" if path else os.fspath(self.root)


@dataclass(frozen=True, slots=True)
class LayerTree:
    """Unpacked layers (base first) merged as overlayfs merges them; whiteouts in the kernel's form."""

    layers: Sequence[Path]
    confined: bool = False

    def lstat(self, path: str) -> os.stat_result | None:
        found = self._find(path)
        return found[1] if found else None

    def readlink(self, path: str) -> str:
        return os.readlink(self.host_path(path))

    def names(self, path: str) -> list[str]:
        hidden: set[str] = set()
        names: set[str] = set()
        for directory in self._directories(path):
            for entry in os.scandir(directory):
                if entry.name in names or entry.name in hidden:
                    continue
                (hidden if _is_whiteout(entry.stat(follow_symlinks=False)) else names).add(entry.name)
        return sorted(names, key=os.fsencode)

    def open(self, path: str) -> int:
        return os.open(self.host_path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def host_path(self, path: str) -> str:
        """Where the topmost version of `path` lies on the host; FileNotFoundError when nothing is there."""
        found = self._find(path)
        if not found:
            raise FileNotFoundError(path)
        return found[0]

    def _find(self, path: str) -> tuple[str, os.stat_result] | None:
        parent, _, name = path.rpartition("/")
        for directory in self._directories(parent):
            host = f"{directory}/{name}" if name else directory
            try:
                status = os.lstat(host)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if _is_whiteout(status) else (host, status)
        return None

    def _directories(self, path: str) -> list[str]:
        """The directories that together make up `path`, topmost first; none when it is no directory."""
        merged = [os.fspath(layer) for layer in reversed(self.layers)]
        for name in path.split("/") if path else ():
            below: list[str] = []
            for directory in merged:
                host = f"{directory}/{name}"
                try:
                    status = os.lstat(host)
                except FileNotFoundError:
                    continue
                if not stat.S_ISDIR(status.st_mode):
                    break
                below.append(host)
                if _is_opaque(host):
                    break
            merged = below
        return merged


def resolve(tree: Tree, path: str, *, follow_last: bool) -> str:
    """Follow the links in `path` (absolute or relative to the root) without ever leaving the tree.

    Components that do not exist are kept as they are, so that a path to be created can be resolved. Raise
    InvalidArgument (`path-escapes` from a confined tree, `too-many-links`).
    """
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    at: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            if at:
                at.pop()
            elif tree.confined:
                raise _escapes(path)
            continue
        at.append(part)
        if not pending and not follow_last:
            break
        status = tree.lstat("/".join(at))
        if status is None or not stat.S_ISLNK(status.st_mode):
            continue
        links += 1
        if links > _MAX_LINKS:
            raise InvalidArgument(
                f"{path!r}: too many symbolic links, or a circle of them",
                code="too-many-links",
                hint="remove the circle",
                path=path,
            )
        target = tree.readlink("/".join(at))
        at.pop()
        if target.startswith("/"):
            if tree.confined:
                raise _escapes(path)
            at.clear()
        pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
    return "/".join(at)


def _escapes(path: str) -> InvalidArgument:
    return InvalidArgument(
        f"{path!r} leads out of the build context",
        code="path-escapes",
        hint="copy what is needed into the context, or give `aos build` a directory further up",
        path=path,
    )


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: str) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(directory, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False
