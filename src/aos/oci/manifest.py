"""The OCI image manifest. Source: OCI image specification 1.1, "manifest.md"."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument
from aos.oci.descriptor import MEDIA_MANIFEST, Descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Manifest"]


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None
    artifact_type: str = ""
    media_type: str = MEDIA_MANIFEST

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Raise InvalidArgument (`manifest-invalid`) for anything that is not a manifest."""
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument("an image manifest that is not JSON", code="manifest-invalid") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("layers"), list) or "manifests" in raw:
            raise InvalidArgument("an image manifest needs 'config' and 'layers'", code="manifest-invalid")
        annotations = raw.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(
            isinstance(part, str) for pair in annotations.items() for part in pair
        ):
            raise InvalidArgument("a manifest's annotations must be strings", code="manifest-invalid")
        subject = raw.get("subject")
        return cls(
            config=Descriptor.from_json(raw.get("config")),
            layers=tuple(Descriptor.from_json(layer) for layer in raw["layers"]),
            annotations=annotations,
            subject=None if subject is None else Descriptor.from_json(subject),
            artifact_type=str(raw.get("artifactType") or ""),
            media_type=str(raw.get("mediaType") or MEDIA_MANIFEST),
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces."""
        raw: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.artifact_type:
            raw["artifactType"] = self.artifact_type
        if self.subject is not None:
            raw["subject"] = self.subject.to_json()
        if self.annotations:
            raw["annotations"] = dict(self.annotations)
        return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
