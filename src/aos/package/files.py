"""The files of a package: what each layer's tar says, and what is left when all lie on top of each other.

Layers are read as streams out of the content store: nothing is unpacked, and what is held is one small record for
each file. Names are without a leading "/", not always UTF-8 (surrogateescape). Archives are hostile: what
`content.unpack` refuses because of its name is refused here, too, and so are more files than MAX_FILES.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from aos.content.archive import OPAQUE, WHITEOUT, XATTR, mtime_ns, open_archive, path_parts, refused
from aos.content.compression import decompressed
from aos.errors import ResourceExhausted
from aos.package.software import Note, note_taker

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterable, Iterator, Mapping

    from aos.content.archive import Archive
    from aos.oci.layer import Layer
    from aos.package.documents import BlobReader

__all__ = [
    "MAX_FILES",
    "File",
    "Kind",
    "LayerFiles",
    "PackageFiles",
    "entry_file",
    "layer_files",
    "merge",
    "read_layers",
]

MAX_FILES = 2_000_000
"""Entries of one layer. Each costs about 500 bytes of memory; a large distribution has 200,000."""

Kind = Literal["file", "directory", "symlink", "device", "fifo"]


@dataclass(frozen=True, slots=True)
class File:
    """One name in a file system, as a layer's tar describes it."""

    path: str
    kind: Kind
    mode: int
    """Permission bits, setuid and the like included."""
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    """Bytes of content; 0 for what is no regular file, and for a further name of one."""
    content: bytes = b""
    """SHA-256 of a regular file's content."""
    link: str = ""
    """Where a symbolic link points; of a further name of a file (a hard link), its first one."""
    device: tuple[str, int, int] | None = None
    """Character (`c`) or block (`b`), major, minor."""
    xattrs: tuple[tuple[str, str], ...] = ()
    layer: int = 0
    """Which layer of the package the file is from, the base's first is 0."""
    note: Note | None = None
    """What a package manager wrote down in this file."""


@dataclass(frozen=True, slots=True)
class LayerFiles:
    """What one layer says: the files it has, and what it hides of those below."""

    files: tuple[File, ...]
    removed: tuple[str, ...]
    emptied: tuple[str, ...]
    """Directories of which nothing below is seen any more."""
    unpacked: int
    """Bytes of the tar."""


@dataclass(slots=True)
class PackageFiles:
    """What lies at each path when all layers are on top of each other."""

    files: dict[str, File] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    """Paths that are gone, and the layer that removed them."""
    hidden: list[File] = field(default_factory=list)
    """Regular files that a later layer removed or replaced: stored and carried, never seen."""


def layer_files(blobs: BlobReader, layer: Layer) -> LayerFiles:
    """Read one layer. Raise what reading blobs and unpacking raise (`layer-invalid`, `digest-mismatch`, …), and
    ResourceExhausted (`layer-too-many-files`)."""
    found: dict[str, File] = {}
    removed: list[str] = []
    emptied: list[str] = []
    count = _Count()
    with (
        blobs.open(layer.digest) as stored,
        open_archive(count.through(decompressed(stored, layer.media_type))) as archive,
    ):
        for number, entry in enumerate(archive):
            if number >= MAX_FILES:
                raise ResourceExhausted(
                    f"layer {layer.digest} has more than {MAX_FILES} entries",
                    code="layer-too-many-files",
                    hint="podman or umoci can unpack it to disk, to be looked at there",
                    digest=layer.digest,
                )
            parts = path_parts(entry.name)
            name = parts[-1] if parts else ""
            if name == OPAQUE:
                emptied.append("/".join(parts[:-1]))
            elif name.startswith(WHITEOUT):
                removed.append("/".join((*parts[:-1], name.removeprefix(WHITEOUT))))
            else:
                path = "/".join(parts)
                found.pop(path, None)  # a later entry of a name replaces an earlier one
                found[path] = entry_file(path, entry, archive, found)
    return LayerFiles(tuple(found.values()), tuple(removed), tuple(emptied), count.bytes)


def read_layers(
    blobs: BlobReader, layers: Iterable[Layer], known: Mapping[str, LayerFiles] | None = None
) -> dict[str, LayerFiles]:
    """Each different layer once, by diff_id; `known` ones are not read again."""
    read = dict(known or {})
    for layer in layers:
        if layer.diff_id not in read:
            read[layer.diff_id] = layer_files(blobs, layer)
    return read


def merge(layers: Iterable[LayerFiles]) -> PackageFiles:
    """Lay layers on top of each other, base first, as overlayfs does: a layer hides only what is below it."""
    merged = PackageFiles()
    for index, layer in enumerate(layers):
        _hide(merged, layer, index)
        for file in layer.files:
            before = merged.files.get(file.path)
            if before is not None and before.kind == "file":
                merged.hidden.append(before)
            merged.removed.pop(file.path, None)
            merged.files[file.path] = file if file.layer == index else replace(file, layer=index)
    return merged


def _hide(merged: PackageFiles, layer: LayerFiles, index: int) -> None:
    """Take away what the layer removes, empties, or covers with something that is no directory (or one that is)."""
    gone, emptied = set(layer.removed), set(layer.emptied)
    for file in layer.files:
        before = merged.files.get(file.path)
        if before is not None and before.kind == "directory" and file.kind != "directory":
            emptied.add(file.path)
        for parent in _parents(file.path):
            below = merged.files.get(parent)
            if below is not None and below.kind != "directory":
                gone.add(parent)
    if not gone and not emptied:
        return
    for path in [
        path
        for path in merged.files
        if path in gone or any(parent in gone or parent in emptied for parent in _parents(path))
    ]:
        file = merged.files.pop(path)
        merged.removed[path] = index
        if file.kind == "file":
            merged.hidden.append(file)


def _parents(path: str) -> Iterator[str]:
    """The directories above a path, the nearest first, the root ("") last."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def entry_file(path: str, entry: tarfile.TarInfo, archive: Archive, found: Mapping[str, File]) -> File:
    """What one entry says; `found` are the entries before it, which a hard link may name."""
    if entry.islnk():
        target = found.get("/".join(path_parts(entry.linkname)))
        if target is None or target.kind == "directory":
            raise refused(entry.name, f"a hard link to {entry.linkname!r:.300}, which is no file before it")
        return replace(target, path=path, link=target.path, size=0)
    kind = _kind(entry)
    size, content, note = _content(path, entry, archive) if kind == "file" else (0, b"", None)
    return File(
        path=path,
        kind=kind,
        mode=entry.mode & 0o7777,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=mtime_ns(entry),
        size=size,
        content=content,
        link=entry.linkname if kind == "symlink" else "",
        device=("c" if entry.ischr() else "b", entry.devmajor, entry.devminor) if kind == "device" else None,
        xattrs=tuple(
            sorted(
                (key.removeprefix(XATTR), value)
                for key, value in entry.pax_headers.items()
                if key.startswith(XATTR)
            )
        ),
        note=note,
    )


def _kind(entry: tarfile.TarInfo) -> Kind:
    if entry.isdir():
        return "directory"
    if entry.issym():
        return "symlink"
    if entry.isreg():
        return "file"
    if entry.ischr() or entry.isblk():
        return "device"
    if entry.isfifo():
        return "fifo"
    raise refused(entry.name, f"an entry of unknown type {entry.type!r}")


def _content(path: str, entry: tarfile.TarInfo, archive: Archive) -> tuple[int, bytes, Note | None]:
    """Size and digest of a file's content, and what it notes down when a package manager keeps it."""
    digest, size, taker = hashlib.sha256(), 0, note_taker(path)
    for piece in archive.content(entry):
        digest.update(piece)
        size += len(piece)
        if taker is not None:
            taker.feed(piece)
    return size, digest.digest(), taker.note() if taker is not None else None


class _Count:
    def __init__(self) -> None:
        self.bytes = 0

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.bytes += len(piece)
            yield piece
