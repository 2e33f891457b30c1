"""What two results are compared as: a layer in a store, or a tree of files on disk."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aos.content.archive import open_archive, path_parts
from aos.content.compression import PIECE, decompressed
from aos.package.files import File, Kind, entry_file

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from aos.oci.layer import Layer
    from aos.package.documents import BlobReader

__all__ = ["LayerSource", "Source", "TreeSource"]


class Source(Protocol):
    """A layer, or a tree of files, to be compared with another one."""

    def files(self) -> list[File]:
        """Every name in its order; whiteouts are files here."""
        ...

    def content(self, path: str) -> Generator[bytes]:
        """What a regular file holds."""
        ...


@dataclass(frozen=True, slots=True)
class LayerSource:
    blobs: BlobReader
    layer: Layer

    def files(self) -> list[File]:
        found: list[File] = []
        by_path: dict[str, File] = {}
        with (
            self.blobs.open(self.layer.digest) as stored,
            open_archive(decompressed(stored, self.layer.media_type)) as archive,
        ):
            for entry in archive:
                file = entry_file("/".join(path_parts(entry.name)), entry, archive, by_path)
                by_path[file.path] = file
                found.append(file)
        return found

    def content(self, path: str) -> Generator[bytes]:
        with (
            self.blobs.open(self.layer.digest) as stored,
            open_archive(decompressed(stored, self.layer.media_type)) as archive,
        ):
            for entry in archive:
                if "/".join(path_parts(entry.name)) == path and entry.isreg():
                    yield from archive.content(entry)
                    return

    def tar(self) -> Generator[bytes]:
        with self.blobs.open(self.layer.digest) as stored:
            yield from decompressed(stored, self.layer.media_type)


@dataclass(frozen=True, slots=True)
class TreeSource:
    """A directory of the host that nobody changes meanwhile."""

    root: Path

    def files(self) -> list[File]:
        found: list[File] = []
        first: dict[tuple[int, int], str] = {}
        for directory, directories, names in os.walk(self.root):
            directories.sort(key=os.fsencode)
            for name in sorted([*directories, *names], key=os.fsencode):
                path = os.path.relpath(f"{directory}/{name}", self.root)
                found.append(self._file(path, first))
        return found

    def content(self, path: str) -> Generator[bytes]:
        with (self.root / path).open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def _file(self, path: str, first: dict[tuple[int, int], str]) -> File:
        status = os.lstat(self.root / path)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "fifo")
        link = str((self.root / path).readlink()) if kind == "symlink" else ""
        content = b""
        if kind == "file":
            known = first.setdefault((status.st_dev, status.st_ino), path)
            link = known if known != path else ""
            digest = hashlib.sha256()
            for piece in self.content(path):
                digest.update(piece)
            content = digest.digest()
        device = (
            "c" if stat.S_ISCHR(status.st_mode) else "b",
            os.major(status.st_rdev),
            os.minor(status.st_rdev),
        )
        xattrs = tuple(
            (
                name,
                os.getxattr(self.root / path, name, follow_symlinks=False).decode("utf-8", "surrogateescape"),
            )
            for name in sorted(os.listxattr(self.root / path, follow_symlinks=False))
        )
        return File(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size if kind == "file" and not link else 0,
            content=content,
            link=link,
            device=device if kind == "device" else None,
            xattrs=xattrs,
        )


_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
