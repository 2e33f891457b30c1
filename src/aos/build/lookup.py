"""Look a vertex up in the cache: what an earlier build made of the same inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.build.keys import cache_key
from aos.build.plan import EMPTY
from aos.package import BuiltLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.build.cache import Cache
    from aos.build.plan import Plan, State, Vertex
    from aos.oci.digest import Digest
    from aos.oci.layer import Layer

__all__ = ["built_layer", "find_cached"]


def find_cached(
    vertex: Vertex, plan: Plan, states: dict[int, State], cache: Cache, keep: Callable[[Digest], None]
) -> State | None:
    """The state that an earlier build made of the same inputs; None: it must be executed.

    The layer is kept before it is looked at, so that no garbage collection comes between."""
    key = cache_key(vertex, plan, states)
    below = EMPTY if vertex.below is None else states[vertex.below]
    entry = cache.get(key)
    if entry is None:
        return None
    if entry.layer is not None:
        keep(entry.layer.digest)
        entry = cache.get(key)
        if entry is None or entry.layer is None:
            return None
    return below.on_top(built_layer(entry.layer, vertex, key))


def built_layer(layer: Layer | None, vertex: Vertex, key: str) -> BuiltLayer | None:
    """The vertex's layer, and where it came from; None: it changed nothing."""
    return None if layer is None else BuiltLayer(layer, vertex.created_by, key, vertex.stage)
