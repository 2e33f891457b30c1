"""Commit an overlay's upper directory to one layer: tar, both digests, compression and storage in one pass.

The bytes depend on the tree alone: entries sorted, times clamped, owners numeric and as the sandbox saw them, no
name of a user, no header that holds a machine or a moment. Whiteouts and opaque directories take OCI's form
(OCI image specification 1.1, "layer.md"); overlay's own attributes never leave the host. A sparse file is written
as the zeros it reads as: where a file system happens to keep holes is not the tree's, and "layer.md" says that
sparse entries should not be used. Holes are not read, though.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from aos.build.layers.tar import BLOCK, header
from aos.content.layer_writer import layer_writer
from aos.content.protocol import IdMap
from aos.errors import FailedPrecondition, Internal

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.compression import Compression
    from aos.content.layer_writer import LayerWriter
    from aos.content.protocol import Blobs
    from aos.oci.layer import Layer

__all__ = ["copy_content", "is_kept_attribute", "write_layer"]


def write_layer(
    upper: Path,
    blobs: Blobs,
    *,
    epoch: int,
    id_map: IdMap | None = None,
    compression: Compression = "gzip",
) -> Layer:
    """Store the tree below `upper` as a layer.

    `epoch`: seconds; later modification times become this one. FailedPrecondition (`tree-changed`) when a file
    shrinks or grows while it is read. Memory stays bounded whatever the size.
    """
    with layer_writer(blobs, compression) as out:
        _Walk(out, epoch, id_map or IdMap.identity()).write(os.fspath(upper))
        out.zeros(2 * BLOCK)
        return out.commit()


def is_kept_attribute(key: str) -> bool:
    """Extended attributes that belong to the file rather than to the host."""
    return key == "security.capability" or (key.startswith("user.") and not key.startswith("user.overlay."))


class _Walk:
    """Writes a tree, a directory before what it holds, names sorted by bytes."""

    def __init__(self, out: LayerWriter, epoch: int, id_map: IdMap) -> None:
        self._out = out
        self._epoch = epoch
        self._map = None if id_map.is_identity else id_map
        self._first: dict[tuple[int, int], str] = {}

    def write(self, upper: str) -> None:
        pending = [("", upper)]
        while pending:
            name, path = pending.pop()
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            if kind == stat.S_IFDIR:
                self._directory(name, path, info)
                with os.scandir(path) as found:
                    names = sorted((child.name for child in found), key=os.fsencode, reverse=True)
                pending += [(f"{name}/{child}" if name else child, f"{path}/{child}") for child in names]
            elif kind == stat.S_IFCHR and info.st_rdev == 0:
                parent, _, last = name.rpartition("/")
                self._marker(f"{parent}/.wh.{last}")
            elif kind != stat.S_IFSOCK:  # a socket lives as long as the process behind it
                self._leaf(name, path, info, kind)

    def _directory(self, name: str, path: str, info: os.stat_result) -> None:
        xattrs = _attributes(path)
        if name:
            self._entry(b"5", f"{name}/", info, xattrs=xattrs)
        if any(xattrs.get(f"{space}.overlay.opaque") == b"y" for space in ("trusted", "user")):
            self._marker(f"{name}/.wh..wh..opq")

    def _leaf(self, name: str, path: str, info: os.stat_result, kind: int) -> None:
        if info.st_nlink > 1:
            first = self._first.setdefault((info.st_dev, info.st_ino), name)
            if first != name:
                self._entry(b"1", name, info, link=first)
                return
        if kind == stat.S_IFREG:
            self._file(name, path, info)
        elif kind == stat.S_IFLNK:
            self._entry(b"2", name, info, link=os.readlink(path))
        elif kind == stat.S_IFIFO:
            self._entry(b"6", name, info)
        else:
            device = (os.major(info.st_rdev), os.minor(info.st_rdev))
            self._entry(b"3" if kind == stat.S_IFCHR else b"4", name, info, device=device)

    def _file(self, name: str, path: str, info: os.stat_result) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = info.st_size
            self._entry(b"0", name, info, size=size, xattrs=_attributes(descriptor))
            missing = copy_content(descriptor, info, self._out)
            if missing or os.fstat(descriptor).st_size != size:
                raise FailedPrecondition(
                    f"{path} changed while it was read",
                    code="tree-changed",
                    hint="build again when nothing writes to it",
                    path=path,
                )
        finally:
            os.close(descriptor)
        self._out.zeros(-size % BLOCK)

    def _entry(
        self,
        kind: bytes,
        name: str,
        info: os.stat_result,
        *,
        size: int = 0,
        link: str = "",
        device: tuple[int, int] | None = None,
        xattrs: dict[str, bytes] | None = None,
    ) -> None:
        owner = info.st_uid, info.st_gid
        uid, gid = owner if self._map is None else self._map.to_container(*owner)
        records = [
            (f"SCHILY.xattr.{key}", xattrs[key].decode("utf-8", "surrogateescape"))
            for key in sorted(xattrs or ())
            if xattrs and is_kept_attribute(key)
        ]
        self._out.write(
            header(
                kind,
                name,
                mode=stat.S_IMODE(info.st_mode),
                uid=uid,
                gid=gid,
                size=size,
                mtime=min(info.st_mtime_ns // 10**9, self._epoch),
                link=link,
                device=device,
                records=records,
            )
        )

    def _marker(self, name: str) -> None:
        self._out.write(header(b"0", name.lstrip("/"), mode=0o600, mtime=self._epoch))


def _attributes(file: str | int) -> dict[str, bytes]:
    try:
        xattrs = {key: os.getxattr(file, key) for key in os.listxattr(file)}
    except OSError:  # a file system without extended attributes
        return {}
    for key in xattrs:
        if key.endswith((".overlay.redirect", ".overlay.metacopy", ".overlay.whiteout")):
            raise Internal(f"{file}: {key}: the overlay was mounted with options that a layer cannot hold")
    return xattrs


def copy_content(descriptor: int, info: os.stat_result, out: LayerWriter) -> int:
    """Write a file's content; return how many of its bytes were missing. Holes are not read."""
    if info.st_blocks * 512 < info.st_size and info.st_size > BLOCK:
        return _copy_sparse(descriptor, info.st_size, out)
    return out.copy(descriptor, info.st_size)


def _copy_sparse(descriptor: int, size: int, out: LayerWriter) -> int:
    """Write a file with holes; return how many bytes it did not have."""
    at = 0
    while at < size:
        try:
            data = min(size, os.lseek(descriptor, at, os.SEEK_DATA))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size  # a hole up to the end
        out.zeros(data - at)
        if data == size:
            break
        at = min(size, os.lseek(descriptor, data, os.SEEK_HOLE))
        os.lseek(descriptor, data, os.SEEK_SET)
        if missing := out.copy(descriptor, at - data):
            return missing
    return 0
