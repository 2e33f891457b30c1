"""Where a `copy` puts things, as COPY of a Dockerfile has it: sources become the entries of one layer.

A directory's *contents* go into `dest`; a file becomes `dest`, or goes into it when `dest` ends in '/' or is a
directory already; several sources need a `dest` that ends in '/'. Directories on the way are made; one that the
image has keeps its owner and mode. Nothing is written here, and nothing is read but names and attributes.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from aos.content.tree import join, resolve
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.build.context.select import Entry, Source
    from aos.content.tree import LayerTree, Reader

__all__ = ["Placed", "place"]


class Placed(NamedTuple):
    """One entry of the layer."""

    path: str
    """Relative to the image's root."""
    entry: Entry | None = None
    """What is copied; None: a directory on the way to it."""
    present: os.stat_result | None = None
    """Of a directory on the way that the image has already."""


def place(sources: Sequence[Source], dest: str, *, below: LayerTree, work_dir: str) -> list[Placed]:
    """The entries that `sources` make on top of `below`, in a layer's order; where two meet, the later one counts.

    Raise InvalidArgument (`copy-dest-not-a-directory`, `copy-type-conflict`, `too-many-links`).
    """
    into = dest.endswith(("/", "/.")) or dest in (".", "")
    if len(sources) > 1 and not into:
        raise InvalidArgument(
            f"copy: {len(sources)} sources cannot all become {dest!r}",
            code="copy-dest-not-a-directory",
            hint=f"end it with '/': {dest}/",
            dest=dest,
        )
    target = dest if dest.startswith("/") else f"{work_dir.rstrip('/')}/{dest}"
    root = resolve(below, target, follow_last=True)
    if not into:
        status = below.lstat(root)
        into = status is not None and stat.S_ISDIR(status.st_mode)
        if not into and not sources[0].is_directory:
            root = resolve(below, target, follow_last=False)  # a link there is replaced, not followed
    with below.reader() as reader:
        placement = _Placement(reader)
        for source in sources:
            start = root if source.is_directory or not into else join(root, source.name)
            for entry in source.entries:
                relative = source.relative(entry)
                placement.add(entry, join(start, relative) if relative else start)
    return sorted(placement.found.values(), key=lambda placed: os.fsencode(placed.path).split(b"/"))


class _Placement:
    def __init__(self, below: Reader) -> None:
        self.found: dict[str, Placed] = {}
        self._below = below
        self._names: dict[str, dict[str, os.stat_result]] = {}

    def add(self, entry: Entry, path: str) -> None:
        if entry.kind == "directory":
            self._directory(path, entry)
            return
        parent = path.rpartition("/")[0]
        if parent not in self.found:
            self._directory(parent, None)
        if self._is_directory(path):
            raise InvalidArgument(
                f"copy: {entry.path!r} would replace the directory {'/' + path!r}",
                code="copy-type-conflict",
                hint="copy it to another place, or remove the directory in a `run` step first",
                path=entry.path,
            )
        self.found[path] = Placed(path, entry)

    def _directory(self, path: str, entry: Entry | None) -> None:
        """A directory that the image has is an entry only when something goes into it (`entry` is None then)."""
        placed = self.found.get(path)
        if not path or (placed is not None and _holds(placed)):
            return
        present = None if placed is not None else self._present(path)
        if placed is not None or (present is not None and not stat.S_ISDIR(present.st_mode)):
            raise InvalidArgument(
                f"copy: {'/' + path!r} is not a directory in the image, so nothing can be copied into it",
                code="copy-type-conflict",
                hint="choose another `dest`",
                path=path,
            )
        if present is not None and entry is not None:
            return
        self._directory(path.rpartition("/")[0], None)
        self.found[path] = Placed(path, entry, present)

    def _is_directory(self, path: str) -> bool:
        placed = self.found.get(path)
        if not path or placed is not None:
            return placed is None or _holds(placed)
        present = self._present(path)
        return present is not None and stat.S_ISDIR(present.st_mode)

    def _present(self, path: str) -> os.stat_result | None:
        """What the image has at `path`."""
        parent, _, name = path.rpartition("/")
        names = self._names.get(parent)
        if names is None:
            above = self._present(parent) if parent else None
            is_there = not parent or (above is not None and stat.S_ISDIR(above.st_mode))
            names = self._names[parent] = dict(self._below.scan(parent)) if is_there else {}
        return names.get(name)


def _holds(placed: Placed) -> bool:
    return placed.entry is None or placed.entry.kind == "directory"
