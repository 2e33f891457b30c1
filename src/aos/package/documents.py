"""The JSON documents of an image, as registries and layouts hand them over: which kind, and is it sound.

Accepts what Docker writes ("Image Manifest Version 2, Schema 2") beside what the OCI image specification says,
and writes only the latter. Documents are hostile: bounded in size, and never two kinds at once
(CVE-2021-41190).
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any, Protocol

from aos.errors import DataLoss, InvalidArgument
from aos.oci.descriptor import (
    MEDIA_CONFIG,
    MEDIA_INDEX,
    MEDIA_LAYER_GZIP,
    MEDIA_LAYER_TAR,
    MEDIA_LAYER_ZSTD,
    MEDIA_MANIFEST,
)
from aos.oci.manifest import Manifest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aos.content.protocol import BlobInfo
    from aos.oci.digest import Digest

__all__ = [
    "DOCUMENT_LIMIT",
    "IMAGE_MEDIA_TYPES",
    "BlobReader",
    "is_index",
    "layer_media_type",
    "media_type_of",
    "parse_manifest",
    "read_document",
]

DOCUMENT_LIMIT = 4 << 20
"""Bytes of a manifest, an index or an image config; the limit that registries set, too."""

_DOCKER = "application/vnd.docker."
_DOCKER_MANIFEST = _DOCKER + "distribution.manifest.v2+json"
_DOCKER_LIST = _DOCKER + "distribution.manifest.list.v2+json"
_DOCKER_CONFIG = _DOCKER + "container.image.v1+json"
_LAYERS = {
    MEDIA_LAYER_TAR: MEDIA_LAYER_TAR,
    MEDIA_LAYER_GZIP: MEDIA_LAYER_GZIP,
    MEDIA_LAYER_ZSTD: MEDIA_LAYER_ZSTD,
    _DOCKER + "image.rootfs.diff.tar": MEDIA_LAYER_TAR,
    _DOCKER + "image.rootfs.diff.tar.gzip": MEDIA_LAYER_GZIP,
    _DOCKER + "image.rootfs.diff.tar.zstd": MEDIA_LAYER_ZSTD,
}
IMAGE_MEDIA_TYPES = (MEDIA_MANIFEST, MEDIA_INDEX, _DOCKER_MANIFEST, _DOCKER_LIST)
"""What a pull accepts."""


class BlobReader(Protocol):
    """The reading half of `content.protocol.Blobs`."""

    def read(self, digest: Digest) -> bytes: ...

    def open(self, digest: Digest) -> AbstractContextManager[IO[bytes]]: ...

    def stat(self, digest: Digest) -> BlobInfo: ...

    def exists(self, digest: Digest) -> bool: ...


def read_document(blobs: BlobReader, digest: Digest) -> bytes:
    """A document from the store, verified; InvalidArgument (`document-too-large`) instead of reading a layer."""
    size = blobs.stat(digest).size
    if size > DOCUMENT_LIMIT:
        raise InvalidArgument(
            f"{digest} is no manifest: it has {size} bytes, a manifest has at most {DOCUMENT_LIMIT}",
            code="document-too-large",
            hint="name the digest of a manifest",
            digest=digest,
        )
    return blobs.read(digest)


def is_index(data: bytes) -> bool:
    return "manifests" in _parse(data)


def media_type_of(data: bytes) -> str:
    """What the document says it is; where it does not, OCI's type for its shape."""
    raw = _parse(data)
    default = MEDIA_INDEX if "manifests" in raw else MEDIA_MANIFEST
    return str(raw.get("mediaType") or default)


def parse_manifest(data: bytes) -> Manifest:
    """An image manifest; InvalidArgument (`not-an-image`, `manifest-invalid`) for anything else."""
    raw = _parse(data)
    if raw.get("schemaVersion") == 1:
        raise InvalidArgument(
            "a Docker manifest of schema 1, which nobody has written since 2017",
            code="not-an-image",
            hint="push the image again with a newer tool",
        )
    if raw.get("mediaType") not in (None, MEDIA_MANIFEST, _DOCKER_MANIFEST) or "manifests" in raw:
        raise InvalidArgument(
            f"{raw.get('mediaType')!r:.100} is not an image manifest",
            code="not-an-image",
            hint="name an image",
        )
    manifest = Manifest.from_bytes(data)
    if manifest.config.media_type not in (MEDIA_CONFIG, _DOCKER_CONFIG):
        raise InvalidArgument(
            f"an artifact of type {manifest.artifact_type or manifest.config.media_type!r:.100}, not an image",
            code="not-an-image",
            hint="name an image or an agent package",
        )
    if manifest.config.size > DOCUMENT_LIMIT:
        raise InvalidArgument(
            f"an image config of {manifest.config.size} bytes; at most {DOCUMENT_LIMIT} are read",
            code="document-too-large",
        )
    return manifest


def layer_media_type(media_type: str) -> str:
    """OCI's name for a layer's media type; InvalidArgument (`layer-unsupported`) for what cannot be unpacked."""
    try:
        return _LAYERS[media_type]
    except KeyError:
        raise InvalidArgument(
            f"a layer of type {media_type!r:.100} cannot be unpacked",
            code="layer-unsupported",
            hint="tar layers, plain or with gzip or zstd, can",
        ) from None


def _parse(data: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("not an image manifest: not JSON", code="not-an-image") from error
    if not isinstance(raw, dict):
        raise InvalidArgument("not an image manifest: not a JSON object", code="not-an-image")
    if "manifests" in raw and ("layers" in raw or "config" in raw):
        raise DataLoss("a document that is an index and a manifest at once", code="document-ambiguous")
    return raw
