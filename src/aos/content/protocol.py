"""The seam of the content store: bytes by digest, and unpacked layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aos.oci.digest import Digest
    from aos.oci.layer import Layer

__all__ = ["BlobInfo", "BlobWriter", "Blobs", "IdMap", "Snapshots", "id_unmapped"]


@dataclass(frozen=True, slots=True)
class BlobInfo:
    digest: Digest
    size: int


class BlobWriter(Protocol):
    """An ingest under way. Not visible until committed; a context manager that aborts unless committed."""

    def write(self, data: bytes | memoryview) -> int: ...

    def commit(self, expected: Digest | None = None, size: int | None = None) -> BlobInfo:
        """fsync, verify, publish atomically. DataLoss (`digest-mismatch`) and nothing kept when it differs.
        A blob that already exists is fine (it is stored at this digest, not because of you)."""
        ...


class Blobs(Protocol):
    """Verified on write, and on read unless the caller asks for the raw path."""

    def writer(self) -> AbstractContextManager[BlobWriter]: ...

    def put(self, data: bytes) -> BlobInfo:
        """Store small content."""
        ...

    def read(self, digest: Digest) -> bytes:
        """Small content, verified. NotFound `blob-not-found`, DataLoss `digest-mismatch`."""
        ...

    def open(self, digest: Digest) -> AbstractContextManager[IO[bytes]]:
        """A stream that raises DataLoss (`digest-mismatch`, also for truncation) at its end when it was not
        what it should be."""
        ...

    def stat(self, digest: Digest) -> BlobInfo: ...

    def exists(self, digest: Digest) -> bool: ...

    def list(self) -> Iterator[BlobInfo]: ...

    def delete(self, digest: Digest) -> None: ...


@dataclass(frozen=True, slots=True)
class IdMap:
    """Maps container ids to host ids: (container, host, count) extents. `IdMap.identity()` maps each to itself."""

    uids: tuple[tuple[int, int, int], ...] = ((0, 0, 4294967295),)
    gids: tuple[tuple[int, int, int], ...] = ((0, 0, 4294967295),)

    @classmethod
    def identity(cls) -> IdMap:
        return cls()

    @property
    def is_identity(self) -> bool:
        return self == IdMap()

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """Owner inside -> owner on disk; InvalidArgument (`id-unmapped`) where there is none."""
        return _shift(uid, self.uids, 0, 1), _shift(gid, self.gids, 0, 1)

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """Owner on disk -> owner inside."""
        return _shift(uid, self.uids, 1, 0), _shift(gid, self.gids, 1, 0)


def _shift(number: int, extents: tuple[tuple[int, int, int], ...], source: int, target: int) -> int:
    for extent in extents:
        if extent[source] <= number < extent[source] + extent[2]:
            return number - extent[source] + extent[target]
    raise id_unmapped(str(number))


def id_unmapped(owner: str, name: str = "") -> InvalidArgument:
    """`owner`: a user, or user and group; `name`: of what belongs to it."""
    return InvalidArgument(
        f"{name}: it belongs to {owner}, an id that this user has not"
        if name
        else f"id {owner} is outside the id map",
        code="id-unmapped",
        hint="give the user a larger range in /etc/subuid and /etc/subgid",
    )


class Snapshots(Protocol):
    """Layers unpacked once, each in a directory of its own, usable as overlay lower directories."""

    def ensure(self, layers: Sequence[Layer], id_map: IdMap) -> tuple[Path, ...]:
        """Unpack what is missing of `layers`, base first; directories in the same order.

        Verifies blob and diff_id; atomic and safe between processes; overlay whiteouts in the kernel's form."""
        ...

    def known(self, layers: Sequence[Layer], id_map: IdMap) -> tuple[Path, ...] | None:
        """What `ensure` would return, at the cost of a look-up for each; None when one of them may be missing."""
        ...

    def adopt(self, layer: Layer, tree: Path) -> None:
        """Take the directory that a layer was made of for its snapshot, instead of unpacking it later."""
        ...
