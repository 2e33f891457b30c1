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
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["LayerTree", "Links", "Reader", "Tree", "by_name", "join", "resolve"]

_MAX_LINKS = 40  # as Linux: path_resolution(7)


class Links(Protocol):
    """What it takes to follow links in a tree."""

    @property
    def confined(self) -> bool:
        """A link that leads out is an error; otherwise "/" is the tree's own root, as after chroot."""
        ...

    def lstat(self, path: str) -> os.stat_result | None:
        """None when nothing is there."""
        ...

    def readlink(self, path: str) -> str: ...


class Tree(Links, Protocol):
    """A read-only view; every path is inside it by construction."""

    def names(self, path: str) -> list[str]:
        """What the directory holds, sorted by bytes."""
        ...

    def open(self, path: str) -> int:
        """A descriptor of a regular file, opened without following any link."""
        ...

    def reader(self) -> AbstractContextManager[Reader]: ...


class Reader(Protocol):
    """Many reads of one tree, quick when they come directory by directory. Of one thread."""

    def scan(self, directory: str) -> list[tuple[str, os.stat_result]]:
        """What the directory holds, sorted by bytes, no link followed."""
        ...

    def lstat(self, path: str) -> os.stat_result:
        """Raise FileNotFoundError, NotADirectoryError when nothing is there."""
        ...

    def readlink(self, path: str) -> str: ...

    def open(self, path: str) -> int: ...


def join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


@dataclass(frozen=True, slots=True)
class LayerTree:
    """Unpacked layers (base first) merged as overlayfs merges them; whiteouts in the kernel's form."""

    layers: Sequence[Path]
    confined: bool = False

    def lstat(self, path: str) -> os.stat_result | None:
        found = self.reader().find(path)
        return found[1] if found else None

    def readlink(self, path: str) -> str:
        return self.reader().readlink(path)

    def names(self, path: str) -> list[str]:
        return [name for name, _ in self.reader().scan(path)]

    def open(self, path: str) -> int:
        return self.reader().open(path)

    def host_path(self, path: str) -> str:
        """Where the topmost version of `path` lies on the host; FileNotFoundError when nothing is there."""
        return self.reader().host_path(path)

    def reader(self) -> _LayerReader:
        return _LayerReader(self.layers)


class _LayerReader:
    """Remembers which directories of which layers make up a directory. Layers do not change."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._merged: dict[str, list[str]] = {"": [os.fspath(layer) for layer in reversed(layers)]}

    def __enter__(self) -> _LayerReader:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def scan(self, directory: str) -> list[tuple[str, os.stat_result]]:
        found: dict[str, os.stat_result] = {}
        for host in self._directories(directory):
            with os.scandir(host) as entries:
                for entry in entries:
                    if entry.name not in found:
                        found[entry.name] = entry.stat(follow_symlinks=False)
        return sorted(((n, status) for n, status in found.items() if not _is_whiteout(status)), key=by_name)

    def readlink(self, path: str) -> str:
        return os.readlink(self.host_path(path))

    def open(self, path: str) -> int:
        return os.open(self.host_path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def lstat(self, path: str) -> os.stat_result:
        return self._found(path)[1]

    def host_path(self, path: str) -> str:
        return self._found(path)[0]

    def _found(self, path: str) -> tuple[str, os.stat_result]:
        found = self.find(path)
        if not found:
            raise FileNotFoundError(path)
        return found

    def find(self, path: str) -> tuple[str, os.stat_result] | None:
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
        if (merged := self._merged.get(path)) is not None:
            return merged
        parent, _, name = path.rpartition("/")
        merged = self._merged[path] = []
        for directory in self._directories(parent):
            host = f"{directory}/{name}"
            try:
                status = os.lstat(host)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            merged.append(host)
            if _is_opaque(host):
                break
        return merged


def resolve(tree: Links, path: str, *, follow_last: bool) -> str:
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


def by_name(entry: tuple[str, object]) -> bytes:
    """The order of names in a directory: by bytes."""
    return os.fsencode(entry[0])


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
