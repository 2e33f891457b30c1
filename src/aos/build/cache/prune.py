"""What builds keep to be quicker the next time, and giving some of it back: results, cache mounts, packages.

A result is an entry of the cache; its layer is a blob of the content store, which a collection removes once no entry
and no package needs it. A mount is a directory that steps have written to (`cache_mounts.py`). Packages are blobs, too:
the files that a step of a lock names (`kept.py`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aos.build.cache.kept import OWNER as KEPT_OWNER
from aos.build.cache.kept import Kept
from aos.build.cache.local import PIN_OWNER, Cache, decode_entry
from aos.build.cache.mounts import cache_mounts, remove_cache_mount, size_on_disk
from aos.build.workspace.replace import sweep_temporary
from aos.build.workspace.workspace import remove_tree
from aos.errors import AosError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from aos.build.cache.mounts import CacheMountUse
    from aos.content.store import ContentStore

__all__ = ["CacheUse", "Item", "Policy", "cache_items", "cache_use", "forget", "prune_cache"]


@dataclass(frozen=True, slots=True)
class Item:
    kind: Literal["result", "mount", "packages"]
    id: str
    """The cache key, the name of the mount, or of the pin that keeps the packages of a lock's step."""
    size: int
    """Bytes: of the layer's blob, of the mount on disk, of the packages."""
    used_at: float
    """Seconds since the epoch."""
    step: str = ""
    package: str = ""
    stage: str = ""
    layer: str = ""
    """The digest of the layer; several results may share one."""
    seconds: float = 0
    """What the result cost to make."""
    mount: CacheMountUse | None = None

    def matches(self, filters: Mapping[str, str]) -> bool:
        """Whether it has all these values; of a step and an id, a part is enough."""
        found = {"kind": self.kind, "package": self.package, "stage": self.stage}
        return all(
            value in (self.step if name == "step" else self.id)
            if name in ("step", "id")
            else found.get(name) == value
            for name, value in filters.items()
        )


FILTERS = ("kind", "package", "stage", "step", "id")


@dataclass(frozen=True, slots=True)
class Policy:
    """What to remove: everything that `filters` choose, but for what a limit lets stay."""

    max_age: float | None = None
    """Seconds: what was used since then stays."""
    max_size: int | None = None
    """Bytes: what was used last stays, as far as it fits."""
    keep_last: int = 0
    """So many results, those used last, stay whatever else is said."""
    filters: Mapping[str, str] | None = None

    def doomed(self, items: Sequence[Item], now: float) -> list[Item]:
        """What goes; the last used first. With limits, only what is beyond one of them."""
        chosen = sorted(
            (item for item in items if item.matches(self.filters or {})),
            key=lambda item: (-item.used_at, item.id),
        )
        limited = self.max_age is not None or self.max_size is not None
        kept, seen, size = 0, set[str](), 0
        out = []
        for item in chosen:
            if item.kind == "result" and kept < self.keep_last:
                kept += 1
                stays = True
            else:
                old = self.max_age is not None and now - item.used_at > self.max_age
                extra = 0 if item.layer in seen else item.size
                large = self.max_size is not None and size + extra > self.max_size
                stays = limited and not old and not large
            if stays:
                size += 0 if item.layer in seen else item.size
                seen |= {item.layer} - {""}
            else:
                out.append(item)
        return out


@dataclass(frozen=True, slots=True)
class CacheUse:
    entries: int
    """Results of vertices; their layers are blobs of the content store and not counted here."""
    bytes: int
    """Of entries and cache mounts on disk."""


def cache_items(directory: Path, content: ContentStore, *, results_only: bool = False) -> list[Item]:
    """Everything in `directory` (`<root>/build`), and what builds keep in the store, the last used first.

    `results_only` saves the time that measuring the rest takes."""
    found = list(_results(directory / "cache"))
    if not results_only:
        found += [*_mounts(directory / "mounts"), *_packages(content)]
    return sorted(found, key=lambda item: (-item.used_at, item.id))


def prune_cache(directory: Path, content: ContentStore, policy: Policy, now: float) -> list[Item]:
    """Remove what the policy dooms. Safe beside a build: what it has used is held by its lease."""
    cache = Cache(directory / "cache", content)
    removed = []
    results_only = (policy.filters or {}).get("kind") == "result"
    for item in policy.doomed(cache_items(directory, content, results_only=results_only), now):
        if item.kind == "packages":
            Kept(content).forget(item.id)
            removed.append(item)
        elif item.mount is None:
            cache.drop(item.id)
            removed.append(item)
        elif remove_cache_mount(item.mount):
            removed.append(item)
    return removed


def cache_use(directory: Path) -> CacheUse:
    """What lies in `directory` (`<root>/build`)."""
    entries = [file.stat().st_blocks * 512 for file in (directory / "cache").glob("*/*.json")]
    mounts = [size_on_disk(mount) for mount in (directory / "mounts").glob("*")]
    return CacheUse(len(entries), sum(entries) + sum(mounts))


def forget(directory: Path, content: ContentStore) -> CacheUse:
    """Remove all of it. Safe beside a build: what it has used is held by its lease, a cache that
    a step has mounted stays, the rest it makes anew."""
    before = cache_use(directory)
    cache = Cache(directory / "cache", content)
    for file in (directory / "cache").glob("*/*.json"):
        cache.drop(file.stem)
    for pin in content.pins.list():
        if pin.owner in (PIN_OWNER, KEPT_OWNER):
            content.pins.remove(pin.owner, pin.name)
    for use in cache_mounts(directory / "mounts"):
        remove_cache_mount(use)
    for stray in (directory / "mounts").glob("*"):  # what nothing can use: of a build that was killed
        if not any(stray.glob("*.lock")):
            with contextlib.suppress(OSError):  # a build begins to use it
                remove_tree(stray)
    for name in ("records", "digests"):
        _empty(directory / name)
    return before


def _empty(directory: Path) -> None:
    """Directories stay, and what is being written: a build may be about to finish it."""
    sweep_temporary(directory)
    for file in directory.rglob("[!.]*"):
        if not file.is_dir():
            file.unlink(missing_ok=True)


def _results(directory: Path) -> Iterator[Item]:
    for file in directory.glob("*/*.json"):
        try:
            used_at = file.stat().st_mtime
            entry = decode_entry(file.read_bytes(), file.stem)
        except (OSError, AosError):
            continue  # gone meanwhile, or damaged: the next build drops it
        if entry is not None:
            layer = entry.layer
            yield Item(
                "result",
                file.stem,
                layer.size if layer else 0,
                used_at,
                step=entry.created_by,
                package=entry.package,
                stage=entry.stage,
                layer=layer.digest if layer else "",
                seconds=entry.seconds,
            )


def _packages(content: ContentStore) -> Iterator[Item]:
    for name, size, used_at in Kept(content).pins():
        yield Item("packages", name, size, used_at, step="install, of a lock")


def _mounts(directory: Path) -> Iterator[Item]:
    for use in cache_mounts(directory):
        name = f"{use.directory.parent.name}/{use.directory.name}"
        yield Item(
            "mount", name, size_on_disk(use.directory), use.last_used, step=f"{use.kind} {use.id}", mount=use
        )
