"""Put a tree that was made elsewhere into a step's upper directory, on top of what the image has."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from aos.content.tree import join, resolve
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.tree import LayerTree

__all__ = ["move_into"]


def move_into(tree: Path, dest: str, root: Path, below: LayerTree) -> None:
    """Move the directory `tree` to `dest`; directories that the image has keep their owner and mode.

    Raise InvalidArgument (`git-conflict`) where a file and a directory meet."""
    path = resolve(below, dest, follow_last=True)
    at = ""
    for part in path.split("/")[:-1]:
        at = join(at, part)
        _directory(at, root, below)
    _merge(tree, path, root, below)


def _merge(source: Path, path: str, root: Path, below: LayerTree) -> None:
    present = below.lstat(path)
    is_directory = source.is_dir() and not source.is_symlink()
    if present is None or not (is_directory or stat.S_ISDIR(present.st_mode)):
        source.rename(root / path)
        return
    if not is_directory:
        raise _conflict(path, "is a directory in the image, and a file in the repository")
    if path:
        _directory(path, root, below)
    for child in sorted(source.iterdir()):
        _merge(child, join(path, child.name), root, below)


def _directory(path: str, root: Path, below: LayerTree) -> None:
    host = root / path
    if host.is_dir():
        return
    present = below.lstat(path)
    if present is not None and not stat.S_ISDIR(present.st_mode):
        raise _conflict(path, "is no directory in the image")
    host.mkdir()
    if present is None:
        host.chmod(0o755)
    else:
        os.chown(host, present.st_uid, present.st_gid)
        host.chmod(stat.S_IMODE(present.st_mode))


def _conflict(path: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"plugin 'git': '/{path}' {why}",
        code="git-conflict",
        hint="choose another `dest`",
        path=path,
    )
