"""Descriptors and media types of the OCI image specification 1.1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument
from aos.oci.digest import Digest, parse_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MEDIA_CONFIG",
    "MEDIA_INDEX",
    "MEDIA_LAYER_GZIP",
    "MEDIA_LAYER_TAR",
    "MEDIA_LAYER_ZSTD",
    "MEDIA_MANIFEST",
    "Descriptor",
]

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
MEDIA_LAYER_GZIP = MEDIA_LAYER_TAR + "+gzip"
MEDIA_LAYER_ZSTD = MEDIA_LAYER_TAR + "+zstd"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: media type, digest, size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            out["annotations"] = dict(sorted(self.annotations.items()))
        return out

    @classmethod
    def from_json(cls, raw: object) -> Descriptor:
        """Raise InvalidArgument (`descriptor-invalid`) for anything that is not a descriptor."""
        if (
            not isinstance(raw, dict)
            or not isinstance(raw.get("mediaType"), str)
            or not isinstance(raw.get("digest"), str)
            or not isinstance(raw.get("size"), int)
            or isinstance(raw["size"], bool)
            or raw["size"] < 0
        ):
            raise InvalidArgument(f"not an OCI descriptor: {raw!r:.200}", code="descriptor-invalid")
        annotations = raw.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(
            isinstance(text, str) for text in annotations.values()
        ):
            raise InvalidArgument("a descriptor's annotations must be strings", code="descriptor-invalid")
        return cls(raw["mediaType"], parse_digest(raw["digest"]), raw["size"], annotations)
