"""One layer of an image: its blob, and the identity of what the blob unpacks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aos.oci.digest import Digest

__all__ = ["Layer"]


@dataclass(frozen=True, slots=True)
class Layer:
    digest: Digest
    """Of the (compressed) blob in the content store."""
    diff_id: Digest
    """Of the uncompressed tar."""
    size: int
    """Of the blob, in bytes."""
    media_type: str
