"""`copy`: files of the context, or of another stage, become a layer, without a detour through a directory.

What a checkout happens to carry does not shape the layer: from the context, modes become 0644 or 0755 (0755 where
a file was executable) and extended attributes are left behind. From a stage both are kept. The owner is 0:0 unless
told otherwise, of directories made on the way, too; every date is the build's epoch. Links are copied as links, and
names of one file stay names of one file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from aos.build.context.digests import changed, identity_of, unreadable
from aos.build.context.select import select
from aos.build.layers.commit import copy_content, is_kept_attribute
from aos.build.layers.tar import BLOCK, header
from aos.build.solve.threads import in_thread
from aos.build.steps.place import place
from aos.build.steps.task import state_tree
from aos.content.layer_writer import layer_writer
from aos.runtime.users import resolve_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aos.agentfile.definition import Copy
    from aos.build.context.digests import FileDigests, Identity
    from aos.build.context.select import Entry, Source
    from aos.build.steps.place import Placed
    from aos.build.steps.task import Task
    from aos.content.layer_writer import LayerWriter
    from aos.content.tree import LayerTree, Reader, Tree
    from aos.oci.layer import Layer

__all__ = ["execute_copy"]

_SMALL = 1 << 16
"""Bytes up to which a file is read at once, and hashed again: cheaper than asking whether it changed."""
_CHUNK = 1 << 20


async def execute_copy(task: Task, step: Copy) -> Layer | None:
    """The layer that the step makes; None when it changes nothing."""
    if step.from_stage:
        tree: Tree = await state_tree(task.around.content, task.reads[0])
    else:
        tree = task.around.context.tree
    sources = task.around.selected.get(task.vertex.place)
    return await in_thread(lambda: _copy(task, step, tree, sources or select(tree, step.src)))


def _copy(task: Task, step: Copy, tree: Tree, sources: Sequence[Source]) -> Layer | None:
    work_dir = (task.around.config_work_dir if task.final else "") or task.below.work_dir or "/"
    placed = place(sources, step.dest, below=task.lower, work_dir=work_dir)
    if not placed:
        return None
    with layer_writer(task.around.content.blobs, task.compression) as out, tree.reader() as reader:
        _Entries(task, step, reader, out).write(placed)
        out.zeros(2 * BLOCK)
        return out.commit()


class _Entries:
    """Writes entries to a layer's tar."""

    def __init__(self, task: Task, step: Copy, reader: Reader, out: LayerWriter) -> None:
        self._lower: LayerTree = task.lower
        self._digests: FileDigests = task.around.context.digests
        self._epoch = task.epoch
        self._reader = reader
        self._out = out
        self._exact = bool(step.from_stage)
        self._given_mode = step.mode
        self._uid, self._gid = _owner(step, task.lower)
        self._first: dict[tuple[int, int], str] = {}

    def write(self, entries: Iterable[Placed]) -> None:
        for path, entry, present in entries:
            if present is not None:
                records = _records(self._lower.host_path(path))
                owner, mode = (present.st_uid, present.st_gid), stat.S_IMODE(present.st_mode)
                self._out.write(self._header(b"5", f"{path}/", mode, owner=owner, records=records))
            elif entry is None:
                self._out.write(self._header(b"5", f"{path}/", 0o755))
            elif entry.kind == "directory":
                head = self._header(b"5", f"{path}/", self._mode(entry), records=self._records(entry))
                self._out.write(head)
            elif entry.kind == "link":
                self._out.write(self._header(b"2", path, 0o777, link=entry.content))
            elif entry.identity is not None:
                self._file(path, entry, entry.identity)

    def _file(self, path: str, entry: Entry, identity: Identity) -> None:
        if entry.names > 1 and (first := self._first.setdefault(identity[:2], path)) != path:
            self._out.write(self._header(b"1", path, self._mode(entry), link=first))
            return
        descriptor = self._open(entry)
        try:
            records = _records(descriptor) if self._exact else []
            head = self._header(b"0", path, self._mode(entry), size=identity[2], records=records)
            if identity[2] <= _SMALL:
                self._small(head, descriptor, entry, identity[2])
            else:
                self._large(head, descriptor, entry, identity)
        finally:
            os.close(descriptor)

    def _small(self, head: bytes, descriptor: int, entry: Entry, size: int) -> None:
        data = os.read(descriptor, size + 1)
        if len(data) != size or (entry.content and hashlib.sha256(data).hexdigest() != entry.content):
            raise changed(entry.path)
        self._out.write(b"".join((head, data, bytes(-size % BLOCK))))

    def _large(self, head: bytes, descriptor: int, entry: Entry, identity: Identity) -> None:
        """Hash only what may have changed without a trace: the identity of other files says that they did not."""
        self._out.write(head)
        info = os.fstat(descriptor)
        if not entry.content or self._digests.is_settled(identity):
            missing = copy_content(descriptor, info, self._out)
        else:
            missing = self._hashed(descriptor, entry, info.st_size)
        if missing or identity_of(os.fstat(descriptor)) != identity:
            raise changed(entry.path)
        self._out.zeros(-identity[2] % BLOCK)

    def _hashed(self, descriptor: int, entry: Entry, left: int) -> int:
        digest = hashlib.sha256()
        while left and (data := os.read(descriptor, min(left, _CHUNK))):
            digest.update(data)
            self._out.write(data)
            left -= len(data)
        if digest.hexdigest() != entry.content:
            raise changed(entry.path)
        return left

    def _open(self, entry: Entry) -> int:
        try:
            return self._reader.open(entry.path)
        except OSError as error:
            raise unreadable(entry.path, error) from error

    def _records(self, directory: Entry) -> list[tuple[str, str]]:
        if not self._exact:
            return []
        descriptor = self._open(directory)
        try:
            return _records(descriptor)
        finally:
            os.close(descriptor)

    def _mode(self, entry: Entry) -> int:
        """With `mode`, directories can also be entered by whoever may read them."""
        if self._given_mode is not None:
            readable = self._given_mode & 0o444
            return self._given_mode | (readable >> 2 if entry.kind == "directory" else 0)
        if self._exact:
            return entry.mode
        return 0o755 if entry.kind == "directory" or entry.mode & 0o111 else 0o644

    def _header(
        self,
        kind: bytes,
        path: str,
        mode: int,
        *,
        size: int = 0,
        link: str = "",
        owner: tuple[int, int] | None = None,
        records: Iterable[tuple[str, str]] = (),
    ) -> bytes:
        uid, gid = owner or (self._uid, self._gid)
        return header(
            kind, path, mode=mode, uid=uid, gid=gid, size=size, mtime=self._epoch, link=link, records=records
        )


def _owner(step: Copy, lower: LayerTree) -> tuple[int, int]:
    """The numbers of the step's owner; names are those of the image that is copied into."""
    user, group = step.owner
    if isinstance(user, int) and isinstance(group, int):
        return user, group
    found = resolve_user(f"{user}:{group}" if group != "" else str(user), lower)
    return found.uid, found.gid


def _records(file: str | int) -> list[tuple[str, str]]:
    """The extended attributes that go with a file, as a tar has them."""
    try:
        names = os.listxattr(file)
    except OSError:  # a file system without extended attributes
        return []
    kept = ((name, os.getxattr(file, name)) for name in sorted(names) if is_kept_attribute(name))
    return [(f"SCHILY.xattr.{name}", value.decode("utf-8", "surrogateescape")) for name, value in kept]
