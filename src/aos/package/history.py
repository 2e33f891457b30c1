"""How a package came to be: its layers and the steps that changed nothing, newest first as docker has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.content.compression import decompressed
from aos.oci.image import History
from aos.package.facts import LayerFacts, Package, layer_facts

if TYPE_CHECKING:
    from aos.oci.layer import Layer
    from aos.package.documents import BlobReader

__all__ = ["HistoryEntry", "history", "unpacked_size"]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    created_by: str
    created: str
    """RFC 3339; empty when unknown."""
    comment: str
    facts: LayerFacts
    layer: Layer | None
    """None: the entry changed the configuration only."""


def history(package: Package) -> list[HistoryEntry]:
    """One entry for each layer; those of the image's own history that made none, too, where it fits the layers."""
    written = package.image.history
    if sum(not entry.empty_layer for entry in written) != len(package.layers):
        written = tuple(History() for _ in package.layers)
    layers = iter(zip(package.layers, layer_facts(package), strict=True))
    entries = []
    for entry in written:
        layer, facts = (None, LayerFacts()) if entry.empty_layer else next(layers)
        entries.append(
            HistoryEntry(facts.created_by or entry.created_by, entry.created, entry.comment, facts, layer)
        )
    return entries[::-1]


def unpacked_size(blobs: BlobReader, layer: Layer) -> int:
    """Bytes of the layer's tar. Reads the whole blob, and so verifies it."""
    with blobs.open(layer.digest) as stored:
        return sum(len(piece) for piece in decompressed(stored, layer.media_type))
