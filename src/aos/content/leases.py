"""Leases: what a running operation needs kept, whatever the garbage collector thinks.

A lease is a file with its birth and one digest a line, and a lock on it, held by the operation. When the process dies, however
it dies, the lock is gone and the lease is void. The order that makes it safe beside a collection, which holds
`gc.lock` alone while leases are changed under a shared hold of it:

1. the lease exists before the operation writes its first blob: a collection keeps every blob that is younger
   than the oldest live lease, and with it what was written and not yet named;
2. a blob that is found rather than written is added *before* it is looked for: either the collection sees the
   lease, or the operation sees that the blob is gone.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.content.blobs import storage_error
from aos.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

__all__ = ["Lease", "Leases", "LiveLease"]


@dataclass(frozen=True, slots=True)
class LiveLease:
    reason: str
    since_ns: int
    """Nanoseconds since the epoch, by the file system's clock."""
    digests: frozenset[Digest]


class Lease:
    """Held as long as the `with` block of `Leases.hold` lasts."""

    def __init__(self, file: IO[bytes], leases: Leases) -> None:
        self._file = file
        self._leases = leases
        self._held: set[Digest] = set()

    def add(self, digest: Digest) -> None:
        """Keep this digest, and all it refers to, until the lease ends."""
        if digest in self._held:
            return
        with self._leases.shared():
            self._file.write(digest.encode() + b"\n")
        self._held.add(digest)


class Leases:
    def __init__(self, root: Path) -> None:
        self._directory = root / "leases"
        self._lock = root / "gc.lock"
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise storage_error(error, self._directory) from error

    @contextmanager
    def hold(self, reason: str) -> Iterator[Lease]:
        """A new lease; `reason` is for people (`build`, `pull`)."""
        path = self._directory / f"{reason}-{secrets.token_hex(8)}"
        with self.shared():
            try:
                file = path.open("xb", buffering=0)
            except OSError as error:
                raise storage_error(error, path) from error
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b"%d\n" % os.fstat(file.fileno()).st_ctime_ns)
        try:
            yield Lease(file, self)
        finally:
            path.unlink(missing_ok=True)
            file.close()

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """For a collection: no lease begins or grows meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            yield

    def live(self) -> list[LiveLease]:
        """All leases whose holders live; files of dead ones are removed. Call it inside `exclusive`."""
        found = []
        for path in sorted(self._directory.iterdir()):
            with suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    since, *digests = file.read().decode().split("\n")[:-1]
                    reason = path.name.rpartition("-")[0]
                    found.append(LiveLease(reason, int(since), frozenset(map(Digest, digests))))
                    continue
                path.unlink()
        return found

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, self._lock) from error
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)
