"""OCI image layouts on disk, as a directory or as a tar archive, read without trusting them.

A layout reads like a content store: blobs by digest, verified. Nothing of an archive is ever extracted: members
are looked up by the few names that the specification knows, and only plain files count, so that names which
climb, links and devices have no effect. Source: OCI image specification 1.1, "image-layout.md".
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import tarfile
from typing import IO, TYPE_CHECKING, Any, Protocol

from aos.content.protocol import BlobInfo
from aos.errors import DataLoss, InvalidArgument, NotFound
from aos.package.documents import DOCUMENT_LIMIT, BlobReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aos.oci.digest import Digest

__all__ = ["ArchiveLayout", "DirectoryLayout", "Layout", "open_layout"]

_MEMBERS_LIMIT = 100_000
_PIECE = 1 << 20


class Layout(BlobReader, Protocol):
    """An image layout: documents by name, blobs by digest."""

    path: Path

    def document(self, name: str) -> bytes | None:
        """A top-level file, at most `DOCUMENT_LIMIT` bytes; None when there is none."""
        ...

    def close(self) -> None: ...


@contextlib.contextmanager
def open_layout(path: Path) -> Iterator[Layout]:
    """The layout at a path: a directory or a tar archive.

    NotFound `layout-not-found`; InvalidArgument `layout-invalid` for anything else."""
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise NotFound(
            f"{path}: {error.strerror}", code="layout-not-found", hint="name an OCI layout", path=str(path)
        ) from error
    layout: Layout = DirectoryLayout(path) if is_directory else ArchiveLayout(path)
    try:
        marker = layout.document("oci-layout")
        try:
            version = json.loads(marker or b"")["imageLayoutVersion"]
        except (ValueError, KeyError, TypeError, RecursionError):
            version = None
        if not isinstance(version, str) or not version.startswith("1."):
            raise InvalidArgument(
                f"{path} is not an OCI image layout: it has no valid 'oci-layout' file",
                code="layout-invalid",
                hint="`aos build -o`, `skopeo copy … oci:DIR` and `podman save --format oci-archive` make layouts",
                path=str(path),
            )
        yield layout
    finally:
        layout.close()


class _Blobs:
    """Verified reads over whatever finds a file by its name in the layout."""

    path: Path

    def _find(self, name: str) -> tuple[IO[bytes], int] | None:
        """An open plain file and its size."""
        raise NotImplementedError

    def document(self, name: str) -> bytes | None:
        found = self._find(name)
        if found is None:
            return None
        with found[0] as file:
            data = file.read(DOCUMENT_LIMIT + 1)
        if len(data) > DOCUMENT_LIMIT:
            raise InvalidArgument(
                f"{self.path}: {name} is too large", code="layout-invalid", path=str(self.path)
            )
        return data

    def exists(self, digest: Digest) -> bool:
        found = self._find(_name(digest))
        if found is not None:
            found[0].close()
        return found is not None

    def stat(self, digest: Digest) -> BlobInfo:
        file, size = self._must(digest)
        file.close()
        return BlobInfo(digest, size)

    def read(self, digest: Digest) -> bytes:
        with self.open(digest) as stream:
            return stream.read()

    @contextlib.contextmanager
    def open(self, digest: Digest) -> Iterator[IO[bytes]]:
        file, _ = self._must(digest)
        with file:
            yield io.BufferedReader(_Verified(file, digest, self.path), _PIECE)

    def _must(self, digest: Digest) -> tuple[IO[bytes], int]:
        found = self._find(_name(digest))
        if found is None:
            raise NotFound(
                f"{self.path}: the blob {digest} is missing",
                code="blob-not-found",
                hint="the layout is incomplete: copy it again",
                digest=digest,
            )
        return found


class DirectoryLayout(_Blobs):
    def __init__(self, path: Path) -> None:
        self.path = path

    def _find(self, name: str) -> tuple[IO[bytes], int] | None:
        try:
            # Without O_NONBLOCK a FIFO of that name would hold us for ever.
            file = os.fdopen(os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidArgument(
                f"{self.path / name}: {error.strerror}", code="layout-invalid", path=str(self.path)
            ) from error
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise InvalidArgument(
                f"{self.path / name} is not a plain file", code="layout-invalid", path=str(self.path)
            )
        return file, status.st_size

    def close(self) -> None:
        pass


class ArchiveLayout(_Blobs):
    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            self._file = tarfile.open(path, "r:")  # noqa: SIM115 (closed by close)
        except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
            raise self._invalid(f"not a tar archive: {error}") from error
        try:
            for count, member in enumerate(self._file):
                if count >= _MEMBERS_LIMIT:
                    raise self._invalid(f"more than {_MEMBERS_LIMIT} members")
                name = member.name.removeprefix("./")
                if name in self._members:
                    raise self._invalid(f"{name!r} appears twice")
                if member.isreg() and not member.issparse():
                    self._members[name] = member
        except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
            self._file.close()
            raise self._invalid(str(error)) from error
        except BaseException:
            self._file.close()
            raise

    def _find(self, name: str) -> tuple[IO[bytes], int] | None:
        member = self._members.get(name)
        file = self._file.extractfile(member) if member is not None else None
        return (file, member.size) if member is not None and file is not None else None

    def close(self) -> None:
        self._file.close()

    def _invalid(self, why: str) -> InvalidArgument:
        return InvalidArgument(
            f"{self.path}: {why}",
            code="layout-invalid",
            hint="an archive must be an uncompressed tar of an OCI image layout",
            path=str(self.path),
        )


class _Verified(io.RawIOBase):
    """Raises DataLoss where the stream ends, unless what came out of it has the digest."""

    def __init__(self, file: IO[bytes], digest: Digest, where: Path) -> None:
        super().__init__()
        self._file, self._digest, self._where = file, digest, where
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except tarfile.TarError as error:
            raise self._damaged("is truncated") from error
        if not data and "sha256:" + self._hash.hexdigest() != self._digest:
            raise self._damaged("is not what its digest says")
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def _damaged(self, how: str) -> DataLoss:
        return DataLoss(
            f"{self._where}: the blob {self._digest} {how}",
            code="digest-mismatch",
            hint="copy the layout again",
            digest=self._digest,
        )


def _name(digest: Digest) -> str:
    return "blobs/" + digest.replace(":", "/")
