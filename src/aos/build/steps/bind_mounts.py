"""The bind mounts of a `run` step: files of stages, images and the context, to be read.

A stage's and an image's layers are mounted as they are. Of the context a copy is mounted that holds what the ignore
file leaves, and nothing of what a checkout happens to carry: exactly what the step's cache key is made of.
"""

from __future__ import annotations

import functools
import hashlib
import os
from typing import TYPE_CHECKING

from aos.build.context.digests import changed, unreadable
from aos.build.solve.threads import in_thread
from aos.build.steps.task import state_tree
from aos.content.tree import LayerTree, resolve
from aos.errors import InvalidArgument, NotFound
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aos.agentfile.definition import Run
    from aos.build.context.files import ContextTree
    from aos.build.context.select import Entry, Source
    from aos.build.steps.task import Task
    from aos.content.tree import Reader

__all__ = ["bind_mounts", "make_places"]

_CHUNK = 1 << 20


async def bind_mounts(task: Task, step: Run) -> list[Mount]:
    """Raise NotFound (`mount-source-missing`), Conflict (`context-changed`)."""
    states = iter(task.reads)
    sources = iter(task.around.selected.get(task.vertex.place, ()))
    found = []
    for mount in step.mounts:
        if not mount.from_stage:
            source = next(sources)
            directory = task.around.workspace.fresh("mount")
            await in_thread(
                functools.partial(_stage, task.around.context.tree, source, directory, task.epoch)
            )
            found.append(Mount("bind", mount.target, directory / "files", read_only=True))
            continue
        state = next(states)
        tree = await state_tree(task.around.content, state)
        if tree.lstat(resolve(tree, mount.source, follow_last=True)) is None:
            raise NotFound(
                f"step {task.vertex.label}: {mount.from_stage!r} has no {mount.source!r} to mount at {mount.target!r}",
                code="mount-source-missing",
                hint="correct `source`, or make it in that stage",
                source=mount.source,
            )
        layers = tuple(item.layer for item in state.layers)
        found.append(Mount("layers", mount.target, layers=layers, path=mount.source))
    return found


def make_places(task: Task, binds: Sequence[Mount], inner: Sequence[Mount]) -> None:
    """See that other mounts find their places inside of `binds`, which a sandbox cannot make in what is read-only.

    Raise InvalidArgument (`mount-inside-read-only`)."""
    for outer in binds:
        for mount in inner:
            if not mount.target.startswith(outer.target + "/"):
                continue
            relative = mount.target.removeprefix(outer.target + "/")
            if outer.kind == "bind" and outer.source is not None and outer.source.is_dir():
                copy = LayerTree((outer.source,))
                place = outer.source / resolve(copy, relative, follow_last=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                if mount.kind == "file" or (mount.source is not None and not mount.source.is_dir()):
                    place.touch()
                else:
                    place.mkdir(exist_ok=True)
            else:
                raise InvalidArgument(
                    f"step {task.vertex.label}: {mount.target!r} lies inside of {outer.target!r}, which is read-only",
                    code="mount-inside-read-only",
                    hint="choose a target beside it",
                    target=mount.target,
                )


def _stage(tree: ContextTree, source: Source, directory: Path, epoch: int) -> None:
    """Copy what was planned to `directory`/files: modes 0644 and 0755, all dates the build's."""
    made = []
    with tree.reader() as reader:
        for entry in source.entries:
            path = directory / "files" / source.relative(entry)
            made.append(path)
            if entry.kind == "link":
                path.symlink_to(entry.content)
                continue
            if entry.kind == "directory":
                path.mkdir()
            else:
                _copy(reader, entry, path)
            path.chmod(0o755 if entry.kind == "directory" or entry.mode & 0o111 else 0o644)
    for path in reversed(made):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _copy(reader: Reader, entry: Entry, path: Path) -> None:
    digest = hashlib.sha256()
    try:
        descriptor = reader.open(entry.path)
    except OSError as error:
        raise unreadable(entry.path, error) from error
    with os.fdopen(descriptor, "rb", buffering=0) as reading, path.open("xb") as writing:
        while chunk := reading.read(_CHUNK):
            digest.update(chunk)
            writing.write(chunk)
    if digest.hexdigest() != entry.content:
        raise changed(entry.path)
