"""`copy`: files of the context, or of another stage, into the image.

What goes where (as `COPY` has it): a directory's *contents* go into `dest`; a file becomes `dest`, or goes into
it when `dest` ends in '/' or is a directory already; several sources need a `dest` that ends in '/'.

What a checkout happens to carry does not shape the layer: from the context, modes become 0644 or 0755 (0755
where a file was executable), every date is the build's epoch, the owner is 0:0 unless told otherwise. From a
stage, modes are kept. Links are copied as links.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from aos.build.ignore import IgnoreRules
from aos.build.select import select
from aos.build.steps.task import Traces, state_tree
from aos.build.threads import in_thread
from aos.content.tree import LayerTree, Tree, join, resolve
from aos.errors import Conflict, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aos.agentfile.definition import Copy
    from aos.build.select import Entry, Source
    from aos.build.steps.task import Task

__all__ = ["copy_sources", "execute_copy"]

_CHUNK = 1 << 20


async def execute_copy(task: Task, step: Copy) -> Traces:
    if step.from_stage:
        tree: Tree = await state_tree(task.around.content, task.reads[0])
    else:
        tree = task.around.context
    work_dir = (task.around.config_work_dir if task.final else "") or task.below.work_dir or "/"

    def work() -> None:
        sources = task.around.selected.get(task.vertex.place)
        if sources is None:
            sources = select(tree, step.src, rules=IgnoreRules(), hashed=False)
        copy_sources(task, step, tree, sources, work_dir)

    await in_thread(work)
    return Traces()


def copy_sources(task: Task, step: Copy, tree: Tree, sources: Sequence[Source], work_dir: str) -> None:
    """Write `sources` into the task's upper directory."""
    writer = _Writer(task, step, tree)
    for entry, destination in _place(sources, step, writer.merged, work_dir):
        writer.write(entry, destination)


def _place(
    sources: Sequence[Source], step: Copy, merged: LayerTree, work_dir: str
) -> Iterator[tuple[Entry, str]]:
    """Where each entry goes: a path relative to the image's root."""
    dest = step.dest if step.dest.startswith("/") else f"{work_dir.rstrip('/')}/{step.dest}"
    into = dest.endswith(("/", "/.")) or step.dest in (".", "./", "")
    if len(sources) > 1 and not into:
        raise InvalidArgument(
            f"copy: {len(sources)} sources cannot all become {step.dest!r}",
            code="copy-dest-not-a-directory",
            hint=f"end it with '/': {step.dest}/",
            dest=step.dest,
        )
    root = resolve(merged, dest, follow_last=True)
    if not into:
        status = merged.lstat(root)
        into = status is not None and stat.S_ISDIR(status.st_mode)
        if not into and not sources[0].is_directory:
            root = resolve(merged, dest, follow_last=False)  # a link there is replaced, not followed
    for source in sources:
        start = root if source.is_directory or not into else join(root, source.name)
        for entry in source.entries:
            yield entry, join(start, entry.relative) if entry.relative else start


class _Writer:
    """Writes entries below one upper directory; what it stands on is seen, and never written to."""

    def __init__(self, task: Task, step: Copy, tree: Tree) -> None:
        self.merged = LayerTree((*task.lower.layers, task.upper))
        self._upper = os.fspath(task.upper)
        self._epoch = task.epoch
        self._tree = tree
        self._step = step
        self._exact = bool(step.from_stage)
        self._ready: set[str] = {""}

    def write(self, entry: Entry, destination: str) -> None:
        if entry.kind == "directory":
            if destination not in self._ready:
                self._directory(destination, entry)
            return
        self._parents(destination)
        present = self.merged.lstat(destination)
        if present is not None and stat.S_ISDIR(present.st_mode):
            raise InvalidArgument(
                f"copy: {entry.path!r} would replace the directory '/{destination}'",
                code="copy-type-conflict",
                hint="copy it to another place, or remove the directory in a `run` step first",
                path=entry.path,
            )
        host = f"{self._upper}/{destination}"
        if os.path.lexists(host):
            os.unlink(host)
        if entry.kind == "link":
            os.symlink(entry.content, host)
        else:
            self._file(entry, host)
        os.chown(host, *self._step.owner, follow_symlinks=False)
        if entry.kind == "file":
            os.chmod(host, self._mode(entry))
        os.utime(host, (self._epoch, self._epoch), follow_symlinks=False)

    def _mode(self, entry: Entry) -> int:
        if self._step.mode is not None:
            readable = self._step.mode & 0o444
            return self._step.mode | (readable >> 2 if entry.kind == "directory" else 0)
        if self._exact:
            return entry.mode
        return 0o755 if entry.kind == "directory" or entry.mode & 0o111 else 0o644

    def _parents(self, destination: str) -> None:
        parent = destination.rpartition("/")[0]
        if parent not in self._ready:
            self._directory(parent, None)

    def _directory(self, path: str, entry: Entry | None) -> None:
        """Make a directory; one that is below already keeps its owner and mode."""
        self._parents(path)
        present = self.merged.lstat(path)
        if present is not None and not stat.S_ISDIR(present.st_mode):
            raise InvalidArgument(
                f"copy: '/{path}' is not a directory in the image, so nothing can be copied into it",
                code="copy-type-conflict",
                hint="choose another `dest`",
                path=path,
            )
        host = f"{self._upper}/{path}"
        self._ready.add(path)
        if os.path.lexists(host):
            return
        os.mkdir(host)
        if present is not None:
            os.chown(host, present.st_uid, present.st_gid)
            os.chmod(host, stat.S_IMODE(present.st_mode))
        elif entry is not None:
            os.chown(host, *self._step.owner)
            os.chmod(host, self._mode(entry))
        else:
            os.chmod(host, 0o755)

    def _file(self, entry: Entry, host: str) -> None:
        """Copy content; what was planned is what is copied, or the build says so."""
        digest = hashlib.sha256()
        source = self._tree.open(entry.path)
        with open(source, "rb", buffering=0) as reading, open(host, "xb", buffering=0) as writing:
            while chunk := reading.read(_CHUNK):
                digest.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[writing.write(view) :]
            if self._exact:
                _copy_capabilities(source, writing.fileno())
        if entry.content and digest.hexdigest() != entry.content:
            raise Conflict(
                f"copy: {entry.path!r} changed while it was read",
                code="context-changed",
                hint="let nothing write to the context while it is built, then build again",
                path=entry.path,
            )


def _copy_capabilities(source: int, target: int) -> None:
    try:
        os.setxattr(target, "security.capability", os.getxattr(source, "security.capability"))
    except OSError:  # it has none
        return
