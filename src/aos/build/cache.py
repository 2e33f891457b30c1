"""What earlier builds made: from a vertex's cache key to the layer it gave.

One small file per key, written whole and renamed, so that builds at the same time and kills cannot tear one. An
entry pins its blob against garbage collection. Whatever is damaged, or points at a blob that is gone, is a miss.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aos.errors import AosError
from aos.oci.digest import parse_digest
from aos.oci.layer import Layer

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.protocol import Blobs
    from aos.content.store import ContentStore

__all__ = ["PIN_OWNER", "Cache", "CacheEntry"]

PIN_OWNER = "build-cache"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class CacheEntry:
    layer: Layer | None
    """None: the vertex changed nothing."""
    created_by: str
    seconds: float
    """What it cost."""


class Cache:
    def __init__(self, directory: Path, content: ContentStore) -> None:
        self._directory = directory
        self._content = content

    def get(self, key: str) -> CacheEntry | None:
        """The result of `key`; None when there is none that can be used (a damaged one is dropped)."""
        file = self._file(key)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            entry = _decode(data, key)
        except (ValueError, KeyError, TypeError, AosError):
            self.drop(key)
            return None
        if entry.layer is not None and not _is_whole(self._content.blobs, entry.layer):
            self.drop(key)
            return None
        return entry

    def put(self, key: str, entry: CacheEntry) -> None:
        """Pin first, then publish: a reader never finds an entry whose blob may vanish."""
        if entry.layer is not None:
            self._content.pins.set(PIN_OWNER, key, (entry.layer.digest,))
        file = self._file(key)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_name(f".{key}.{os.getpid()}")
        try:
            temporary.write_bytes(_encode(key, entry))
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def drop(self, key: str) -> None:
        with contextlib.suppress(OSError):
            self._file(key).unlink(missing_ok=True)
            self._content.pins.remove(PIN_OWNER, key)

    def _file(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"


def _is_whole(blobs: Blobs, layer: Layer) -> bool:
    try:
        return blobs.stat(layer.digest).size == layer.size
    except AosError:
        return False


def _encode(key: str, entry: CacheEntry) -> bytes:
    layer = entry.layer
    raw: dict[str, Any] = {
        "version": _FORMAT,
        "key": key,
        "created_by": entry.created_by,
        "seconds": round(entry.seconds, 3),
        "layer": layer
        and {
            "digest": layer.digest,
            "diff_id": layer.diff_id,
            "size": layer.size,
            "media_type": layer.media_type,
        },
    }
    return json.dumps(raw, sort_keys=True).encode()


def _decode(data: bytes, key: str) -> CacheEntry:
    raw: Any = json.loads(data)
    if raw["version"] != _FORMAT or raw["key"] != key:
        raise ValueError("of another version, or under a wrong name")
    layer = raw["layer"]
    if layer is not None:
        if not (isinstance(layer["size"], int) and isinstance(layer["media_type"], str)):
            raise TypeError("layer")
        layer = Layer(
            parse_digest(layer["digest"]), parse_digest(layer["diff_id"]), layer["size"], layer["media_type"]
        )
    return CacheEntry(layer, str(raw["created_by"]), float(raw["seconds"]))
