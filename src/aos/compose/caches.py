"""What builds keep, and caches that several machines share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.compose.packages import content_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from aos.build.cache.prune import Item as CacheItem
    from aos.build.cache.store import CacheStore
    from aos.config import Config


__all__ = ["cache_items", "existing_caches", "open_cache", "prune_cache"]


def cache_items(config: Config) -> list[CacheItem]:
    """What builds keep: results and mounts, the last used first."""
    from aos.build.cache.prune import cache_items

    return cache_items(config.root / "build", content_store(config))


def prune_cache(config: Config, policy: Mapping[str, Any]) -> list[CacheItem]:
    """Remove of it what `aos.build.cache.prune.Policy` dooms; `policy` has its fields."""
    from aos.build.cache.prune import Policy, prune_cache
    from aos.clock import SystemClock

    return prune_cache(config.root / "build", content_store(config), Policy(**policy), SystemClock().now())


def existing_caches(
    environ: Mapping[str, str], directories: Sequence[Path], warn: Callable[[str], None]
) -> tuple[CacheStore, ...]:
    from aos.errors import NotFound

    found = []
    for directory in directories:
        try:
            found.append(open_cache(environ, directory, create=False))
        except NotFound as error:
            warn(error.message)
    return tuple(found)


def open_cache(environ: Mapping[str, str], directory: Path, *, create: bool) -> CacheStore:
    from aos.build.cache.directory import CacheDirectory

    return CacheDirectory(directory, environ, create=create)
