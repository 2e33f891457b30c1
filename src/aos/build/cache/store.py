"""The seam of shared caches: where builds on several machines leave results for each other (`--cache-to`,
`--cache-from`). A directory is one (`cache_directory.py`); a registry can be another.

Entries and blobs travel as they are: nothing is compressed again. Entries are by cache key and tell which blob they
need; whoever reads one checks it, whatever the store is.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aos.oci.digest import Digest

__all__ = ["CacheStore"]


class CacheStore(Protocol):
    """All methods raise PermissionDenied, ResourceExhausted, DataLoss or Unavailable for what the store cannot do."""

    @property
    def name(self) -> str:
        """For people: where it is."""
        ...

    def entry(self, key: str) -> bytes | None:
        """What was kept under a cache key; None when nothing was. Not to be believed before it is decoded."""
        ...

    def blob(self, digest: Digest) -> AbstractContextManager[IO[bytes]]:
        """A blob's bytes, to be verified by who reads them. NotFound (`blob-not-found`)."""
        ...

    def has_blob(self, digest: Digest, size: int) -> bool: ...

    def add_blob(self, digest: Digest, content: IO[bytes]) -> None:
        """Keep a blob; whole or not at all."""
        ...

    def add_entry(self, key: str, data: bytes) -> None:
        """Keep an entry, once the blob that it needs is there."""
        ...
