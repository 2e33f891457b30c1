"""Look vertices up: what earlier builds made of the same inputs, here or in the caches that were named.

A result from another cache is known by its entry alone; its blob is fetched when somebody needs the bytes, so that
the layers of a stage that gives the package one file are not copied for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.build.cache.local import CacheEntry, decode_entry, encode_entry
from aos.build.plan.graph import EMPTY
from aos.build.plan.keys import components, key_of
from aos.errors import AosError, DataLoss
from aos.package import BuiltLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aos.build.cache.local import Cache
    from aos.build.cache.store import CacheStore
    from aos.build.plan.graph import Plan, State, Vertex
    from aos.build.plan.keys import Component
    from aos.content.store import ContentStore
    from aos.oci.digest import Digest
    from aos.oci.layer import Layer

__all__ = ["Found", "Lookup"]


@dataclass(frozen=True, slots=True)
class Found:
    state: State
    seconds: float
    """What it cost when it was executed."""
    size: int
    """Of its layer's blob, in bytes; 0 when it changed nothing."""


class Lookup:
    """The results of one plan's vertices; `states` are filled by whoever solves it."""

    def __init__(
        self,
        plan: Plan,
        states: Mapping[int, State],
        cache: Cache,
        content: ContentStore,
        *,
        package: str,
        sources: Sequence[CacheStore],
        forced: Callable[[Vertex], bool],
        hold: Callable[[Digest], None],
        warn: Callable[[str], None],
    ) -> None:
        self.forced = forced
        self.hold = hold
        self._plan = plan
        self._states = states
        self._cache = cache
        self._content = content
        self._package = package
        self._sources = list(sources)
        self._warn = warn
        self._remote: dict[Digest, tuple[Layer, CacheStore, dict[str, CacheEntry]]] = {}
        """Layers that are not here yet, where they are, and the entries to keep once they are here."""
        self._refused: set[Digest] = set()
        """Layers that other caches promised and did not give."""

    def components(self, vertex: Vertex) -> tuple[Component, ...]:
        return components(vertex, self._plan, self._states)

    def key(self, vertex: Vertex) -> str:
        return key_of(self.components(vertex))

    def find(self, vertex: Vertex) -> Found | None:
        """What an earlier build made of the same inputs; None: it must be executed."""
        key = self.key(vertex)
        entry = self._local(key) or self._elsewhere(key)
        if entry is None:
            return None
        state = self._below(vertex).on_top(_built(entry.layer, vertex, key))
        return Found(state, entry.seconds, entry.layer.size if entry.layer else 0)

    def keep(self, vertex: Vertex, layer: Layer | None, seconds: float) -> State:
        """Remember what a vertex has made, and the state that it leaves."""
        key = self.key(vertex)
        self._cache.put(key, CacheEntry(layer, vertex.created_by, seconds, self._package, vertex.stage))
        return self._below(vertex).on_top(_built(layer, vertex, key))

    def move(self, vertex: Vertex, to: Vertex) -> None:
        """Keep the result of a vertex under the key of another, which would have made the same."""
        key = self.key(vertex)
        entry = self._cache.get(key)
        if entry is not None:
            self._cache.put(self.key(to), entry)
            self._cache.drop(key)

    def fetch(self, states: Iterable[State]) -> None:
        """Have the layers of these states here. Raise DataLoss with the `digest` of one that cannot be had."""
        for state in states:
            for built in state.layers:
                if built.layer.digest in self._remote:
                    self._fetch(*self._remote[built.layer.digest])

    def export(self, store: CacheStore) -> int:
        """Leave the results of the plan in another cache; what is there already is not copied again.

        Raise what the store does, and DataLoss for a result of a cache that cannot be had from there."""
        count = 0
        for vertex in self._plan.vertices:
            if vertex.step is None:
                continue
            key = self.key(vertex)
            entry = self._local(key) or self._elsewhere(key)
            if entry is None:
                continue  # removed meanwhile
            data, layer = encode_entry(key, entry), entry.layer
            if store.entry(key) == data and (layer is None or store.has_blob(layer.digest, layer.size)):
                continue
            if layer is not None and not store.has_blob(layer.digest, layer.size):
                if layer.digest in self._remote:
                    self._fetch(*self._remote[layer.digest])
                with self._content.blobs.open(layer.digest) as content:
                    store.add_blob(layer.digest, content)
            store.add_entry(key, data)
            count += 1
        return count

    def disown(self, digest: Digest) -> bool:
        """Forget the result with a layer that turned out damaged; False when it is from no cache."""
        keys = {
            built.cache_key
            for state in self._states.values()
            for built in state.layers
            if built.layer.digest == digest and built.cache_key
        }
        known = bool(keys) and digest not in self._refused
        self._refused.add(digest)
        self._remote.pop(digest, None)
        for key in keys:
            self._cache.drop(key)
        return known

    def _local(self, key: str) -> CacheEntry | None:
        entry = self._cache.get(key)
        if entry is None or entry.layer is None:
            return entry
        self.hold(entry.layer.digest)
        return self._cache.get(key)  # again: before it was held, a collection may have come between

    def _elsewhere(self, key: str) -> CacheEntry | None:
        for source in self._sources:
            try:
                data = source.entry(key)
                entry = decode_entry(data, key) if data is not None else None
            except AosError as error:
                self._warn(f"a result in the cache {source.name} is not used: {error.message}")
                continue
            if entry is None or (entry.layer is not None and entry.layer.digest in self._refused):
                continue
            if entry.layer is None:
                self._cache.put(key, entry)
            else:
                known = self._remote.setdefault(entry.layer.digest, (entry.layer, source, {}))
                known[2][key] = entry
            return entry
        return None

    def _fetch(self, layer: Layer, source: CacheStore, entries: Mapping[str, CacheEntry]) -> None:
        blobs = self._content.blobs
        self.hold(layer.digest)
        try:
            if not blobs.exists(layer.digest):
                self._copy(layer, source)
            _check_diff_id(self._content, layer)
        except AosError as error:
            raise DataLoss(
                f"the cache {source.name}: {error.message}", code="cache-entry-damaged", digest=layer.digest
            ) from error
        del self._remote[layer.digest]
        for key, entry in entries.items():
            self._cache.put(key, entry)

    def _copy(self, layer: Layer, source: CacheStore) -> None:
        with source.blob(layer.digest) as stream, self._content.blobs.writer() as writer:
            left = layer.size + 1  # one byte more than was announced is refused
            while left and (data := stream.read(min(left, 1 << 20))):
                writer.write(data)
                left -= len(data)
            writer.commit(layer.digest, layer.size)

    def _below(self, vertex: Vertex) -> State:
        return EMPTY if vertex.below is None else self._states[vertex.below]


def _built(layer: Layer | None, vertex: Vertex, key: str) -> BuiltLayer | None:
    """The vertex's layer, and where it came from; None: it changed nothing."""
    return None if layer is None else BuiltLayer(layer, vertex.created_by, key, vertex.stage)


def _check_diff_id(content: ContentStore, layer: Layer) -> None:
    """What comes from elsewhere must unpack to what it says: keys of other vertices are made of it."""
    import hashlib

    from aos.content.compression import decompressed

    digest = hashlib.sha256()
    with content.blobs.open(layer.digest) as stored:
        for piece in decompressed(stored, layer.media_type):
            digest.update(piece)
    if f"sha256:{digest.hexdigest()}" != layer.diff_id:
        raise DataLoss(f"the layer {layer.digest} does not unpack to {layer.diff_id}", code="digest-mismatch")
