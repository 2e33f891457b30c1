"""Read a package out of a content store by its manifest digest, and trust nothing on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.errors import DataLoss, InvalidArgument
from aos.oci.image import ImageSpec
from aos.oci.index import Index, host_platform, select
from aos.oci.layer import Layer
from aos.package.documents import is_index, layer_media_type, parse_manifest, read_document
from aos.package.facts import LABEL_NAME, LABEL_VERSION, Package, definition_of, layer_facts

if TYPE_CHECKING:
    from aos.oci.descriptor import Descriptor
    from aos.oci.digest import Digest
    from aos.oci.index import Platform
    from aos.oci.manifest import Manifest
    from aos.package.documents import BlobReader

__all__ = ["load_package", "manifest_of"]

_INDEX_DEPTH = 3


def load_package(blobs: BlobReader, manifest_digest: Digest, *, platform: Platform | None = None) -> Package:
    """Read a manifest, or an index and this platform's manifest in it, and its image config.

    Holds afterwards: manifest and config have their digests; every layer exists in its size; there is a
    diff_id for each layer; the labels of an AOS package are sound. The layers' bytes were verified when they
    were stored, and `verify_package` does it again. Errors: NotFound `blob-not-found`, `platform-not-found`;
    InvalidArgument `not-an-image`, `package-invalid`, `layer-unsupported`; DataLoss `digest-mismatch`,
    `size-mismatch`.
    """
    platform = platform or host_platform()
    digest, data = manifest_digest, read_document(blobs, manifest_digest)
    for _ in range(_INDEX_DEPTH):
        if not is_index(data):
            break
        digest = select(Index.from_bytes(data), platform).digest
        data = read_document(blobs, digest)
    manifest = parse_manifest(data)
    image = ImageSpec.from_bytes(_config(blobs, manifest))
    if len(image.diff_ids) != len(manifest.layers):
        raise InvalidArgument(
            f"{digest}: the image config has {len(image.diff_ids)} diff_ids for {len(manifest.layers)} layers",
            code="package-invalid",
            digest=digest,
        )
    for descriptor in manifest.layers:
        _must_fit(blobs, descriptor)
    layers = tuple(
        Layer(descriptor.digest, diff_id, descriptor.size, layer_media_type(descriptor.media_type))
        for descriptor, diff_id in zip(manifest.layers, image.diff_ids, strict=True)
    )
    package = Package(
        digest,
        image,
        layers,
        definition_of(image.labels),
        image.labels.get(LABEL_NAME, ""),
        image.labels.get(LABEL_VERSION, ""),
    )
    layer_facts(package)
    return package


def manifest_of(blobs: BlobReader, digest: Digest) -> Manifest:
    """The manifest of a loaded package."""
    return parse_manifest(read_document(blobs, digest))


def _config(blobs: BlobReader, manifest: Manifest) -> bytes:
    _must_fit(blobs, manifest.config)
    return blobs.read(manifest.config.digest)


def _must_fit(blobs: BlobReader, descriptor: Descriptor) -> None:
    actual = blobs.stat(descriptor.digest).size
    if actual != descriptor.size:
        raise DataLoss(
            f"{descriptor.digest} has {actual} bytes, the manifest says {descriptor.size}",
            code="size-mismatch",
            digest=descriptor.digest,
        )
