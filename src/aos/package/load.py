"""Read a package out of a content store by its manifest digest, and trust nothing on the way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aos.errors import DataLoss, InvalidArgument, NotFound
from aos.oci.descriptor import Descriptor
from aos.oci.image import ImageSpec
from aos.oci.index import Index, host_platform, select
from aos.oci.layer import Layer
from aos.package.documents import DOCUMENT_LIMIT, is_index, layer_media_type, parse_manifest, read_document
from aos.package.facts import LABEL_NAME, LABEL_VERSION, Package, definition_of, layer_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aos.content.protocol import Blobs
    from aos.oci.digest import Digest
    from aos.oci.index import Platform
    from aos.oci.manifest import Manifest
    from aos.package.documents import BlobReader

__all__ = ["load_package", "manifest_of", "package_children"]

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


def package_children(blobs: Blobs) -> Callable[[Digest], Iterable[Digest]]:
    """What a blob refers to, for garbage collection: of an index its manifests, of a manifest config and layers.

    Layers and other content refer to nothing. A blob that is not there (an index names other platforms)
    refers to nothing; one that is damaged raises DataLoss, so that nothing is collected on false premises.
    """

    def children(digest: Digest) -> Iterable[Digest]:
        try:
            if blobs.stat(digest).size > DOCUMENT_LIMIT:
                return ()
            with blobs.open(digest) as stream:
                if stream.read(1) != b"{":
                    return ()
            raw = json.loads(blobs.read(digest))
        except (NotFound, ValueError, RecursionError):
            return ()
        found: list[object] = [raw.get("config"), raw.get("subject")]
        for key in ("manifests", "layers"):
            found += raw[key] if isinstance(raw.get(key), list) else []
        return [child for item in found if (child := _digest_in(item)) is not None]

    return children


def _digest_in(item: object) -> Digest | None:
    try:
        return Descriptor.from_json(item).digest
    except InvalidArgument:
        return None


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
