"""Forget what builds have kept: results of earlier builds, and the caches of package managers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.build.cache import PIN_OWNER, Cache
from aos.build.workspace import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.store import ContentStore

__all__ = ["CacheUse", "cache_use", "forget"]


@dataclass(frozen=True, slots=True)
class CacheUse:
    entries: int
    """Results of vertices; their layers are blobs of the content store and not counted here."""
    bytes: int
    """Of entries and cache mounts on disk."""


def cache_use(directory: Path) -> CacheUse:
    """What lies in `directory` (`<root>/build`)."""
    entries = sum(1 for _ in (directory / "cache").glob("*/*.json"))
    sizes = (
        os.lstat(os.path.join(path, name)).st_blocks * 512
        for top in ("cache", "mounts")
        for path, _, names in os.walk(directory / top)
        for name in names
    )
    return CacheUse(entries, sum(sizes))


def forget(directory: Path, content: ContentStore) -> CacheUse:
    """Remove all of it. Safe beside a build: what it has used is held by its lease, the rest it makes anew."""
    before = cache_use(directory)
    cache = Cache(directory / "cache", content)
    for file in (directory / "cache").glob("*/*.json"):
        cache.drop(file.stem)
    for pin in content.pins.list():
        if pin.owner == PIN_OWNER:
            content.pins.remove(pin.owner, pin.name)
    remove_tree(directory / "mounts")
    return before
