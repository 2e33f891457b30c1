"""The content store of one installation: blobs, unpacked layers, and what keeps them from collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.content.blobs import BlobStore
from aos.content.leases import Leases
from aos.content.pins import Pins
from aos.content.snapshots import SnapshotStore

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ContentStore"]


class ContentStore:
    """Safe between concurrent processes; builds without a daemon and the daemon share one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = BlobStore(root)
        self.snapshots = SnapshotStore(root, self.blobs)
        self.leases = Leases(root)
        self.pins = Pins(root)
