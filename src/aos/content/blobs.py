"""Blobs: immutable bytes under their digest, in files.

    blobs/sha256/<hex>   published, mode 0444
    ingest/<id>          being written; its writer holds a lock on it, so that a dead writer's is known

A blob is written under a private name, synced, and renamed: it is there whole or not at all. Writers of the same
content do not hurt each other; the last rename wins with the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from aos.content.protocol import BlobInfo
from aos.errors import AosError, DataLoss, Internal, NotFound, ResourceExhausted
from aos.oci.digest import Digest, parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

__all__ = ["BlobStore", "storage_error"]


class BlobStore:
    """The `Blobs` of one directory. `touch` of an existing blob keeps it from a concurrent collection."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        for directory in (self._blobs, self._ingest):
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise storage_error(error, directory) from error

    def path(self, digest: Digest) -> Path:
        """Where the blob is, whether or not it exists. Reading it this way verifies nothing."""
        return self._blobs / parse_digest(digest).removeprefix("sha256:")

    @contextmanager
    def writer(self) -> Iterator[_Writer]:
        writer = _Writer(self._ingest, self._blobs)
        try:
            yield writer
        finally:
            writer.close()

    def put(self, data: bytes) -> BlobInfo:
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def read(self, digest: Digest) -> bytes:
        with self.open(digest) as stream:
            return stream.read()

    @contextmanager
    def open(self, digest: Digest) -> Iterator[IO[bytes]]:
        try:
            file = self.path(digest).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise _not_found(digest) from error
        with file, io.BufferedReader(_Verified(file, digest), 1 << 20) as stream:
            yield stream

    def stat(self, digest: Digest) -> BlobInfo:
        try:
            return BlobInfo(digest, self.path(digest).stat().st_size)
        except FileNotFoundError as error:
            raise _not_found(digest) from error

    def exists(self, digest: Digest) -> bool:
        return self.path(digest).exists()

    def list(self) -> Iterator[BlobInfo]:
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                if len(entry.name) == 64:
                    with suppress(FileNotFoundError):
                        yield BlobInfo(Digest("sha256:" + entry.name), entry.stat().st_size)

    def delete(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what dead writers left; return how many bytes that freed."""
        freed = 0
        for path in self._ingest.iterdir():
            with suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                freed += path.stat().st_size
                path.unlink()
        return freed


class _Writer:
    def __init__(self, ingest: Path, blobs: Path) -> None:
        self._blobs = blobs
        self._hash = hashlib.sha256()
        self._size = 0
        while True:
            self._path = ingest / secrets.token_hex(8)
            try:
                self._file = self._path.open("xb", buffering=0)
            except OSError as error:
                raise storage_error(error, self._path) from error
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if self._path.exists():  # not swept between its creation and the lock
                break
            self._file.close()

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        self._hash.update(view)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise storage_error(error, self._path) from error
        self._size += len(data)
        return len(data)

    def commit(self, expected: Digest | None = None, size: int | None = None) -> BlobInfo:
        digest = Digest("sha256:" + self._hash.hexdigest())
        if (size is not None and size != self._size) or (expected is not None and expected != digest):
            raise DataLoss(
                f"the content is not what was announced: {digest} with {self._size} bytes"
                f" instead of {expected or digest} with {self._size if size is None else size}",
                code="digest-mismatch",
                hint="fetch or build it again; it was not stored",
                expected=expected,
                actual=digest,
            )
        target = self._blobs / digest.removeprefix("sha256:")
        try:
            os.fchmod(self._file.fileno(), 0o444)
            os.fsync(self._file.fileno())
            self._path.rename(target)  # replaces the same bytes; its new times protect it from a collection
            _sync_directory(self._blobs)
        except OSError as error:
            raise storage_error(error, target) from error
        return BlobInfo(digest, self._size)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


class _Verified(io.RawIOBase):
    """Hashes while it is read, and raises at the end of file when the bytes were not the blob's."""

    def __init__(self, file: io.FileIO, digest: Digest) -> None:
        self._file = file
        self._digest = digest
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer)
        if count:
            self._hash.update(memoryview(buffer)[:count])
        elif "sha256:" + self._hash.hexdigest() != self._digest:
            raise DataLoss(
                f"the stored blob {self._digest} is damaged",
                code="digest-mismatch",
                hint="remove the package (`aos packages rm`), run `aos prune`, and pull or build it again",
                digest=self._digest,
            )
        return count


def storage_error(error: OSError, path: Path) -> AosError:
    """What an operating system's refusal to store something means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            f"{path}: no space left",
            code="disk-full",
            hint="free space (`aos prune` removes what nothing uses) or set AOS_ROOT to a larger disk",
            path=str(path),
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        from aos.errors import PermissionDenied

        return PermissionDenied(
            f"{path}: {error.strerror}",
            code="storage-not-writable",
            hint="use the owner's account, or set AOS_ROOT to a directory of yours",
            path=str(path),
        )
    return Internal(f"{path}: {error.strerror or error}", code="storage-failed", path=str(path))


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_found(digest: Digest) -> NotFound:
    return NotFound(
        f"no blob {digest} in the content store",
        code="blob-not-found",
        hint="pull or build the package again",
        digest=digest,
    )
