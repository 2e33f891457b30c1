"""Garbage collection: what no root, pin or live lease reaches is removed. The safety argument is in leases.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aos.content.store import ContentStore
    from aos.oci.digest import Digest

__all__ = ["Collected", "collect"]


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed, or would be."""

    blobs: int
    snapshots: int
    bytes: int


def collect(
    content: ContentStore,
    roots: Callable[[], Iterable[Digest]],
    children: Callable[[Digest], Iterable[Digest]],
    *,
    dry_run: bool = False,
) -> Collected:
    """Remove blobs, unpacked layers and dead writers' files that nothing needs.

    `roots` is called once no lease can begin or grow; `children` names what a blob refers to (nothing for a
    layer, and for a blob that is not there).
    """
    with content.leases.exclusive():
        live = content.leases.live()
        young = min((lease.since_ns for lease in live), default=None)
        pending = [*roots(), *(digest for pin in content.pins.list() for digest in pin.digests)]
        pending += [digest for lease in live for digest in lease.digests]
        reachable: set[Digest] = set()
        while pending:
            digest = pending.pop()
            if digest not in reachable:
                reachable.add(digest)
                pending.extend(children(digest))
        freed = blobs = 0
        for blob in list(content.blobs.list()):
            if blob.digest in reachable:
                continue
            path = content.blobs.path(blob.digest)
            if young is not None and path.stat().st_ctime_ns >= young:
                continue
            blobs, freed = blobs + 1, freed + blob.size
            if not dry_run:
                content.blobs.delete(blob.digest)
        snapshots, size = content.snapshots.collect(reachable, young, dry_run=dry_run)
        if not dry_run:
            freed += content.blobs.sweep()
    return Collected(blobs, snapshots, freed + size)
