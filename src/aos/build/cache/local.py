"""What earlier builds made: from a vertex's cache key to the layer it gave.

    cache/<2 hex>/<key>.json    one result; the date of the file is when it was used last

One small file per key, written whole and renamed, so that builds at the same time and kills cannot tear one. An
entry pins its blob against garbage collection. What is damaged, or points at a blob that is gone or not what it was,
is dropped with a warning, and is a miss. An entry in the format of another version of AOS is left alone.

A blob is believed by its size as long as its file has not changed since the entry was used last; after that it is
hashed. What a disk loses silently is seen when a layer is unpacked or sent, and by `aos verify`.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aos.build.workspace.replace import replace_file
from aos.errors import AosError, DataLoss
from aos.oci.digest import parse_digest
from aos.oci.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aos.content.store import ContentStore

__all__ = ["PIN_OWNER", "Cache", "CacheEntry", "decode_entry", "encode_entry"]

PIN_OWNER = "build-cache"
_FORMAT = 2
_LARGEST = 1 << 18  # bytes of an entry; a longer one is none of ours


@dataclass(frozen=True, slots=True)
class CacheEntry:
    layer: Layer | None
    """None: the vertex changed nothing."""
    created_by: str
    seconds: float
    """What it cost."""
    package: str = ""
    """Of the build that made it: name, without the version."""
    stage: str = ""


class Cache:
    def __init__(
        self, directory: Path, content: ContentStore, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._directory = directory
        self._content = content
        self._warn = warn

    def get(self, key: str) -> CacheEntry | None:
        """The result of `key`, which counts as used; None when there is none that can be used."""
        file = self._file(key)
        try:
            with file.open("rb") as opened:
                used_ns = os.fstat(opened.fileno()).st_mtime_ns
                data = opened.read(_LARGEST)
        except FileNotFoundError:
            return None
        try:
            entry = decode_entry(data, key)
            if entry is not None and entry.layer is not None:
                self._check(entry.layer, used_ns)
        except AosError as error:
            self.drop(key)
            self._warn(f"a result in the build cache is damaged and is made again: {error.message}")
            return None
        if entry is not None:
            with contextlib.suppress(OSError):  # a store that cannot be written to can still be read
                os.utime(file)
        return entry

    def put(self, key: str, entry: CacheEntry) -> None:
        """Pin first, then publish: a reader never finds an entry whose blob may vanish."""
        if entry.layer is not None:
            self._content.pins.set(PIN_OWNER, key, (entry.layer.digest,))
        file = self._file(key)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file, encode_entry(key, entry))

    def drop(self, key: str) -> None:
        with contextlib.suppress(OSError):
            self._file(key).unlink(missing_ok=True)
            self._content.pins.remove(PIN_OWNER, key)

    def _file(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"

    def _check(self, layer: Layer, used_ns: int) -> None:
        """Raise NotFound (`blob-not-found`) or DataLoss (`digest-mismatch`) unless the blob is there and whole."""
        blobs = self._content.blobs
        size = blobs.stat(layer.digest).size
        if size != layer.size:
            raise DataLoss(
                f"the blob {layer.digest} has {size} bytes, not {layer.size}", code="digest-mismatch"
            )
        if blobs.path(layer.digest).stat().st_ctime_ns > used_ns:
            with blobs.open(layer.digest) as stream:
                while stream.read(1 << 20):
                    pass


def encode_entry(key: str, entry: CacheEntry) -> bytes:
    layer = entry.layer
    raw: dict[str, Any] = {
        "version": _FORMAT,
        "key": key,
        "created_by": entry.created_by,
        "seconds": round(entry.seconds, 3),
        "package": entry.package,
        "stage": entry.stage,
        "layer": layer
        and {
            "digest": layer.digest,
            "diff_id": layer.diff_id,
            "size": layer.size,
            "media_type": layer.media_type,
        },
    }
    return json.dumps(raw, sort_keys=True).encode()


def decode_entry(data: bytes, key: str) -> CacheEntry | None:
    """What `encode_entry` wrote; None: another version of AOS did. Raise DataLoss (`cache-entry-damaged`)."""
    try:
        raw: Any = json.loads(data)
        if isinstance(raw["version"], int) and raw["version"] != _FORMAT:
            return None
        if raw["version"] != _FORMAT or raw["key"] != key:
            raise ValueError("under a wrong name")
        layer = raw["layer"]
        if layer is not None:
            if not (isinstance(layer["size"], int) and isinstance(layer["media_type"], str)):
                raise TypeError("layer")
            layer = Layer(
                parse_digest(layer["digest"]),
                parse_digest(layer["diff_id"]),
                layer["size"],
                layer["media_type"],
            )
        texts = (str(raw[name]) for name in ("package", "stage"))
        return CacheEntry(layer, str(raw["created_by"]), float(raw["seconds"]), *texts)
    except (ValueError, KeyError, TypeError, RecursionError, AosError) as error:
        raise DataLoss(f"the entry {key[:12]} cannot be read", code="cache-entry-damaged") from error
