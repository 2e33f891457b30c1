"""Write packages as OCI image layouts with sidecars: a directory, or a tar archive.

Both appear whole or not at all: they are made under a temporary name beside the target and renamed.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import tarfile
from typing import IO, TYPE_CHECKING

from aos.errors import AlreadyExists, FailedPrecondition
from aos.oci.descriptor import Descriptor
from aos.oci.index import Index, IndexEntry, Platform
from aos.package.documents import media_type_of, parse_manifest, read_document
from aos.package.sidecars import SIDECARS, sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aos.package.documents import BlobReader
    from aos.package.facts import Package

__all__ = ["ANNOTATION_IMAGE_NAME", "ANNOTATION_REF_NAME", "write_archive", "write_layout"]

ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"
ANNOTATION_IMAGE_NAME = "io.containerd.image.name"
"""What containerd and podman call an image that they import; buildkit writes it, too."""

_PIECE = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_OURS = {"oci-layout", "index.json", "blobs", *SIDECARS}


def write_layout(package: Package, blobs: BlobReader, directory: Path, *, tag: str = "") -> None:
    """Write the package as a directory; `tag` (default: the version, else `latest`) names it in the index.

    Replaces a layout that AOS wrote. AlreadyExists `directory-not-ours` for any other directory with
    something in it, or a file. The blobs are verified while they are copied.
    """
    directory = directory.resolve()
    _refuse_what_is_not_ours(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    new = directory.parent / f".{directory.name}.{secrets.token_hex(4)}"
    try:
        (new / "blobs/sha256").mkdir(parents=True)
        for name, _, opened in _files(package, blobs, tag):
            with (new / name).open("wb") as file, opened as content:
                shutil.copyfileobj(content, file, _PIECE)
                file.flush()
                os.fsync(file.fileno())
        _put_in_place(new, directory)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write_archive(package: Package, blobs: BlobReader, file: Path, *, tag: str = "") -> None:
    """Write the package as an uncompressed tar of the same layout; the same package gives the same bytes."""
    file = file.resolve()
    if file.is_dir():
        raise AlreadyExists(f"{file} is a directory", code="directory-not-ours", hint="name a file")
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.parent / f".{file.name}.{secrets.token_hex(4)}"
    try:
        with new.open("wb") as raw, tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in ("blobs/", "blobs/sha256/"):
                archive.addfile(_member(name, directory=True))
            for name, size, opened in _files(package, blobs, tag):
                with opened as content:
                    archive.addfile(_member(name, size=size), content)
                    content.read(1)  # the end, where a blob says whether it was what it should be
        with new.open("rb") as written:
            os.fsync(written.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _files(
    package: Package, blobs: BlobReader, tag: str
) -> Iterator[tuple[str, int, AbstractContextManager[IO[bytes]]]]:
    """Every file of the layout, in order: its name, its size, its content."""
    document = read_document(blobs, package.manifest_digest)
    tag = tag or package.version or "latest"
    annotations = {ANNOTATION_REF_NAME: tag}
    if package.name:
        # A version may hold '+', a tag may not; Helm writes '_' for it, too.
        annotations[ANNOTATION_IMAGE_NAME] = f"{package.name}:{tag.replace('+', '_')}"
    descriptor = Descriptor(media_type_of(document), package.manifest_digest, len(document), annotations)
    platform = Platform(package.image.os, package.image.architecture)
    texts = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": Index((IndexEntry(descriptor, platform),)).to_bytes(),
        **sidecars(package),
    }
    for name, data in texts.items():
        yield name, len(data), contextlib.closing(io.BytesIO(data))
    manifest = parse_manifest(document)
    digests = [package.manifest_digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
    for digest in dict.fromkeys(digests):
        yield "blobs/" + digest.replace(":", "/"), blobs.stat(digest).size, blobs.open(digest)


def _refuse_what_is_not_ours(directory: Path) -> None:
    try:
        there = {entry.name for entry in directory.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise AlreadyExists(
            f"{directory} is not a directory", code="directory-not-ours", hint="name another one"
        ) from None
    if there and not (there <= _OURS and {"oci-layout", "layers.json"} <= there):
        raise AlreadyExists(
            f"{directory} is not empty and not a package that AOS wrote",
            code="directory-not-ours",
            hint="name an empty or a new directory",
            path=str(directory),
        )


def _put_in_place(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`; what was there goes to `new` in the same moment, where the kernel can."""
    try:
        if not directory.exists() or not any(directory.iterdir()):
            new.rename(directory)
        elif not _exchange(new, directory):
            old = new.with_name(new.name + ".old")
            directory.rename(old)
            new.rename(directory)
            shutil.rmtree(old)
    except OSError as error:
        raise FailedPrecondition(
            f"cannot put a new layout at {directory}: {error.strerror}",
            code="directory-in-use",
            hint="name a directory that is not a mount point",
            path=str(directory),
        ) from error
    parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically (renameat2(2) with RENAME_EXCHANGE); False where libc or file system cannot."""
    import ctypes

    try:
        renameat2: Callable[..., int] = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _member(name: str, *, size: int = 0, directory: bool = False) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o755 if directory else 0o644
    member.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return member
