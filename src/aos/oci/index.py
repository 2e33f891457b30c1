"""The OCI image index (and Docker's manifest list), and choosing a platform's manifest from it.

Sources: OCI image specification 1.1, "image-index.md"; Go's GOOS/GOARCH names for platforms.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument, NotFound
from aos.oci.descriptor import MEDIA_INDEX, Descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Index", "IndexEntry", "Platform", "host_platform", "select"]

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform() -> Platform:
    machine = os.uname().machine
    return Platform("linux", _MACHINES.get(machine, machine))


@dataclass(frozen=True, slots=True)
class IndexEntry:
    descriptor: Descriptor
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Index:
    manifests: tuple[IndexEntry, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = MEDIA_INDEX

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """Raise InvalidArgument (`index-invalid`) for anything that is not an index."""
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument("an image index that is not JSON", code="index-invalid") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("manifests"), list):
            raise InvalidArgument("an image index without 'manifests'", code="index-invalid")
        if "layers" in raw or "config" in raw:
            raise InvalidArgument("a document that is an index and a manifest at once", code="index-invalid")
        annotations = raw.get("annotations") or {}
        if not isinstance(annotations, dict):
            raise InvalidArgument("an index's annotations must be a map", code="index-invalid")
        media_type = raw.get("mediaType") or MEDIA_INDEX
        return cls(tuple(_entry(item) for item in raw["manifests"]), annotations, str(media_type))

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces."""
        manifests: list[dict[str, Any]] = []
        for entry in self.manifests:
            item = entry.descriptor.to_json()
            if entry.platform is not None:
                item["platform"] = {"os": entry.platform.os, "architecture": entry.platform.architecture}
                if entry.platform.variant:
                    item["platform"]["variant"] = entry.platform.variant
            manifests.append(item)
        raw: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type, "manifests": manifests}
        if self.annotations:
            raw["annotations"] = dict(self.annotations)
        return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _entry(item: object) -> IndexEntry:
    descriptor = Descriptor.from_json(item)
    raw = item.get("platform") if isinstance(item, dict) else None
    if raw is None:
        return IndexEntry(descriptor)
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), str) for key in ("os", "architecture")):
        raise InvalidArgument("a platform without 'os' and 'architecture'", code="index-invalid")
    variant = raw.get("variant")
    return IndexEntry(
        descriptor, Platform(raw["os"], raw["architecture"], variant if isinstance(variant, str) else "")
    )


def select(index: Index, platform: Platform) -> Descriptor:
    """The first manifest for the platform; where none names a platform, the only one.

    A variant that the platform leaves open matches any. NotFound `platform-not-found` lists what there is."""
    for entry in index.manifests:
        if (
            entry.platform is not None
            and (entry.platform.os, entry.platform.architecture) == (platform.os, platform.architecture)
            and (not platform.variant or entry.platform.variant in ("", platform.variant))
        ):
            return entry.descriptor
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0].descriptor
    there = sorted({str(entry.platform) for entry in index.manifests if entry.platform is not None})
    raise NotFound(
        f"the image index has no manifest for {platform}",
        code="platform-not-found",
        hint="it has: " + (", ".join(there) or "none with a platform"),
        platform=str(platform),
        available=there,
    )
