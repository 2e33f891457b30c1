"""Commit an overlay's upper directory to one layer: tar, both digests, compression and storage in one pass.

The bytes depend on the tree alone: entries sorted, times clamped, owners numeric and as the sandbox saw them, no
name of a user, no header that holds a machine or a moment. Whiteouts and opaque directories take OCI's form
(OCI image specification 1.1, "layer.md"); overlay's own attributes never leave the host.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from typing import TYPE_CHECKING

from aos.content.compression import PIECE, compressor, media_type_for
from aos.content.protocol import IdMap
from aos.errors import FailedPrecondition, Internal
from aos.oci.digest import Digest
from aos.oci.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aos.content.compression import Compression
    from aos.content.protocol import Blobs, BlobWriter

__all__ = ["write_layer"]

_XATTRS = ("security.capability",)
"""Extended attributes that belong to the file rather than to the host; `user.*` do, too."""


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
    with blobs.writer() as writer:
        sink = _Sink(writer, compression)
        for entry, source in _entries(upper, epoch, id_map or IdMap.identity()):
            sink.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            if source is not None:
                _copy(source, entry, sink)
        sink.write(bytes(2 * tarfile.BLOCKSIZE))
        diff_id = sink.finish()
        info = writer.commit()
    return Layer(info.digest, diff_id, info.size, media_type_for(compression))


class _Sink:
    """Gathers small writes, hashes, compresses, stores."""

    def __init__(self, writer: BlobWriter, compression: Compression) -> None:
        self._writer = writer
        self._compressor = compressor(compression)
        self._hash = hashlib.sha256()
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= PIECE:
            self._drain()

    def finish(self) -> Digest:
        self._drain()
        self._writer.write(self._compressor.flush())
        return Digest("sha256:" + self._hash.hexdigest())

    def _drain(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        self._hash.update(data)
        if compressed := self._compressor.compress(data):
            self._writer.write(compressed)


def _entries(upper: Path, epoch: int, id_map: IdMap) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    """Headers, and where the content of regular files is; a directory before what it holds."""
    seen: dict[tuple[int, int], str] = {}
    pending = [("", os.fspath(upper))]
    while pending:
        name, path = pending.pop()
        info = os.lstat(path)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFSOCK:
            continue  # lives as long as the process behind it
        if kind == stat.S_IFCHR and info.st_rdev == 0:
            parent, _, last = name.rpartition("/")
            yield _marker(f"{parent}/.wh.{last}".lstrip("/"), epoch), None
            continue
        xattrs = _attributes(path) if kind in (stat.S_IFREG, stat.S_IFDIR) else {}
        if name:
            entry = _header(name, info, xattrs, epoch, id_map)
            if kind != stat.S_IFDIR and info.st_nlink > 1:
                first = seen.setdefault((info.st_dev, info.st_ino), name)
                if first != name:
                    entry.type, entry.linkname, entry.size, entry.pax_headers = tarfile.LNKTYPE, first, 0, {}
            if entry.issym():
                entry.linkname = os.readlink(path)
            yield entry, path if entry.isreg() else None
        if kind == stat.S_IFDIR:
            if any(xattrs.get(f"{space}.overlay.opaque") == b"y" for space in ("trusted", "user")):
                yield _marker(f"{name}/.wh..wh..opq".lstrip("/"), epoch), None
            with os.scandir(path) as found:
                names = sorted((child.name for child in found), key=os.fsencode, reverse=True)
            pending += [(f"{name}/{child}" if name else child, f"{path}/{child}") for child in names]


def _header(
    name: str, info: os.stat_result, xattrs: dict[str, bytes], epoch: int, id_map: IdMap
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = _TYPES[stat.S_IFMT(info.st_mode)]
    entry.mode = stat.S_IMODE(info.st_mode)
    entry.uid, entry.gid = id_map.to_container(info.st_uid, info.st_gid)
    entry.mtime = min(int(info.st_mtime), epoch)
    if entry.isreg():
        entry.size = info.st_size
    elif entry.ischr() or entry.isblk():
        entry.devmajor, entry.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    entry.pax_headers = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
        for key, value in sorted(xattrs.items())
        if key in _XATTRS or (key.startswith("user.") and not key.startswith("user.overlay."))
    }
    return entry


def _marker(name: str, epoch: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime = 0o600, epoch
    return entry


def _attributes(path: str) -> dict[str, bytes]:
    try:
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }
    except OSError:  # a file system without extended attributes
        return {}
    for key in ("trusted.overlay.redirect", "trusted.overlay.metacopy", "user.overlay.redirect"):
        if key in xattrs:
            raise Internal(f"{path}: {key}: the overlay was mounted with options that a layer cannot hold")
    return xattrs


def _copy(path: str, entry: tarfile.TarInfo, sink: _Sink) -> None:
    left = entry.size
    with open(path, "rb", buffering=0) as file:
        while left and (data := file.read(min(left, PIECE))):
            sink.write(data)
            left -= len(data)
        if left or file.read(1):
            raise FailedPrecondition(
                f"{path} changed while it was read",
                code="tree-changed",
                hint="build again when nothing writes to it",
                path=path,
            )
    sink.write(bytes(-entry.size % tarfile.BLOCKSIZE))


_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
