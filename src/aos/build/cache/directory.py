"""A shared cache in a directory: on a disk that CI keeps, or on a file system that several machines mount.

    aos-cache.json           {"version": 1}
    entries/<2 hex>/<key>.json
    blobs/sha256/<hex>       as in an OCI image layout

Everything is written under a private name and renamed, and only ever added, so that it needs no locks: machines that
write the same at once replace a file by an equal one. That holds on NFS too, whose rename is atomic on the server.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from typing import IO, TYPE_CHECKING

from aos.errors import (
    AosError,
    DataLoss,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from aos.oci.digest import parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from aos.oci.digest import Digest

__all__ = ["CacheDirectory"]

_MARK = "aos-cache.json"
_VERSION = 1
_LARGEST_ENTRY = 1 << 18  # bytes


class CacheDirectory:
    """A `CacheStore`. Its owner decides what is in the packages of who uses it, so it must be ours."""

    def __init__(self, directory: Path, environ: Mapping[str, str], *, create: bool) -> None:
        """Raise NotFound (`cache-not-found`), PermissionDenied (`cache-not-ours`, `cache-not-writable`),
        InvalidArgument (`cache-invalid`)."""
        self._directory = directory
        try:
            if create and not (directory.is_dir() and any(directory.iterdir())):
                directory.mkdir(parents=True, exist_ok=True)
                self._check_owner(environ)
                self._write(directory / _MARK, json.dumps({"version": _VERSION}).encode())
            self._check_owner(environ)
            self._check_mark()
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no build cache in {str(directory)!r}",
                code="cache-not-found",
                hint="`aos build --cache-to DIR` makes one",
                path=str(directory),
            ) from error
        except OSError as error:
            raise self._failed(error) from error

    @property
    def name(self) -> str:
        return str(self._directory)

    def entry(self, key: str) -> bytes | None:
        try:
            with self._open(self._entry(key)) as file:
                return file.read(_LARGEST_ENTRY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from error

    @contextlib.contextmanager
    def blob(self, digest: Digest) -> Iterator[IO[bytes]]:
        try:
            file = self._open(self._blob(digest))
        except FileNotFoundError as error:
            raise NotFound(
                f"the build cache {self.name!r} has no blob {digest}", code="blob-not-found", digest=digest
            ) from error
        except OSError as error:
            raise self._failed(error) from error
        with file:
            yield file

    def has_blob(self, digest: Digest, size: int) -> bool:
        try:
            status = self._blob(digest).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == size

    def add_blob(self, digest: Digest, content: IO[bytes]) -> None:
        self._write(self._blob(digest), content)

    def add_entry(self, key: str, data: bytes) -> None:
        self._write(self._entry(key), data)

    def _entry(self, key: str) -> Path:
        return self._directory / "entries" / key[:2] / f"{key}.json"

    def _blob(self, digest: Digest) -> Path:
        return self._directory / "blobs/sha256" / parse_digest(digest).removeprefix("sha256:")

    def _open(self, path: Path) -> IO[bytes]:
        """A regular file, and no other: a FIFO would make us wait, a link lead elsewhere."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DataLoss(f"{path} is no file", code="cache-entry-damaged", path=str(path))
        return os.fdopen(descriptor, "rb")

    def _write(self, path: Path, content: bytes | IO[bytes]) -> None:
        """Under a name that no other machine uses, then renamed; synced, because others rely on it."""
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    shutil.copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _check_owner(self, environ: Mapping[str, str]) -> None:
        """Ours: root's, this user's, or (under sudo) that of who called sudo."""
        caller = environ.get("SUDO_UID", "")
        ours = {0, os.geteuid(), *([int(caller)] if caller.isdecimal() else [])}
        owner = self._directory.stat().st_uid
        if owner not in ours:
            raise PermissionDenied(
                f"the build cache {self.name!r} belongs to user {owner}, who would decide what is in your packages",
                code="cache-not-ours",
                hint=f"if you trust what is in it: chown -R {os.geteuid()} {self.name}",
                path=self.name,
            )

    def _check_mark(self) -> None:
        with self._open(self._directory / _MARK) as file:
            data = file.read(_LARGEST_ENTRY)
        try:
            version = json.loads(data)["version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            version = None
        if version != _VERSION:
            raise InvalidArgument(
                f"{self.name!r} is no build cache that this version of aos understands",
                code="cache-invalid",
                hint="name an empty directory",
                path=self.name,
            )

    def _failed(self, error: OSError) -> AosError:
        where = f"the build cache {self.name!r}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceExhausted(
                where, code="disk-full", hint="free space there, or name another directory", path=self.name
            )
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return PermissionDenied(
                where, code="cache-not-writable", hint="use an account that may, or another directory"
            )
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST):
            return InvalidArgument(where, code="cache-invalid", hint="name a directory", path=self.name)
        return Unavailable(where, code="cache-unavailable", path=self.name)
