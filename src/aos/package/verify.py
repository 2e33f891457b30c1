"""Check a package byte by byte, and say all that is wrong with it, not only the first thing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.errors import AosError, DataLoss
from aos.package.documents import media_type_of, parse_manifest, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.oci.layer import Layer
    from aos.package.documents import BlobReader
    from aos.package.facts import Package

__all__ = ["Check", "verify_package"]

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked."""

    what: str
    """`manifest`, `config`, `layer`, or the name of a sidecar."""
    subject: str
    """A digest or a file."""
    detail: str
    """What holds, or what is wrong."""
    problem: AosError | None = None


def verify_package(package: Package, blobs: BlobReader) -> Iterator[Check]:
    """Hash again everything that the manifest's digest covers: manifest, config, each layer as stored (its
    digest) and as unpacked (its diff_id). Blocks; yields as it goes."""
    document = read_document(blobs, package.manifest_digest)
    manifest = parse_manifest(document)
    yield Check("manifest", package.manifest_digest, media_type_of(document))
    yield Check("config", manifest.config.digest, f"{len(blobs.read(manifest.config.digest))} bytes")
    for layer in package.layers:
        try:
            diff_id = _diff_id(layer, blobs)
            if diff_id != layer.diff_id:
                raise DataLoss(
                    f"{layer.digest} unpacks to {diff_id}, the config says {layer.diff_id}",
                    code="diff-id-mismatch",
                    hint="build or pull the package again",
                    digest=layer.digest,
                )
            yield Check("layer", layer.digest, f"{layer.size} bytes, unpacks to its diff_id")
        except AosError as error:
            yield Check("layer", layer.digest, error.message, error)


def _diff_id(layer: Layer, blobs: BlobReader) -> str:
    from aos.content.compression import decompressed

    unpacked = hashlib.sha256()
    with blobs.open(layer.digest) as stored:
        for piece in decompressed(stored, layer.media_type):
            unpacked.update(piece)
        while stored.read(_PIECE):
            pass  # to its end, where the stream says whether the blob is itself
    return "sha256:" + unpacked.hexdigest()
