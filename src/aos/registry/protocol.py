"""The seam of a registry of names: from references to manifest digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.oci.digest import Digest
    from aos.oci.reference import Reference

__all__ = ["Entry", "PackageRegistry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name, and facts about what it stands for (so that a listing reads no blobs)."""

    reference: str
    digest: Digest
    """Of the image manifest of this host's platform."""
    name: str
    version: str
    size: int
    """Of the layers as stored, in bytes."""
    created_at: float
    """When the name was given to this digest; seconds since the Unix epoch."""


class PackageRegistry(Protocol):
    """Names for content that is stored elsewhere. Untagging never deletes content; garbage collection does."""

    def tag(
        self, reference: Reference | str, digest: Digest, *, name: str = "", version: str = "", size: int = 0
    ) -> Entry:
        """Let `reference` stand for `digest` from now on; the same digest again changes nothing."""
        ...

    def resolve(self, reference: Reference | str) -> Digest:
        """The digest behind a reference, a digest, or a unique prefix (4 digits or more) of a digest.

        NotFound `package-not-found`, InvalidArgument `digest-ambiguous`, `reference-invalid`."""
        ...

    def list(self) -> Sequence[Entry]:
        """Sorted by reference."""
        ...

    def remove(self, reference: Reference | str) -> Sequence[Entry]:
        """Forget a reference, or every reference to a digest; what was forgotten. Errors as for `resolve`."""
        ...
