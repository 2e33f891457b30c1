"""Make a package: the definition and the layers become a config and a manifest in the content store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aos.oci.descriptor import MEDIA_CONFIG, Descriptor
from aos.oci.image import History
from aos.oci.manifest import Manifest
from aos.package.facts import LABEL_DEFINITION, LABEL_LAYERS, LABEL_NAME, LABEL_VERSION, Package, canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.content.protocol import Blobs
    from aos.oci.image import ImageSpec
    from aos.package.facts import BuiltLayer

__all__ = ["assemble"]

_EPOCH = "1970-01-01T00:00:00Z"
_ANNOTATION = "org.opencontainers.image."


def assemble(
    blobs: Blobs, *, definition_json: dict[str, Any], image: ImageSpec, layers: Sequence[BuiltLayer]
) -> Package:
    """Store config and manifest; the same arguments give the same digest on every machine.

    `image` is what the agent runs with (platform, environment, entrypoint, user, labels), `created` included
    (1970 where it has none). `layers` are all of them, base first; those that `image` already counts in its
    diff_ids keep their history.
    """
    metadata = definition_json["metadata"]
    name, version = str(metadata["name"]), str(metadata["version"])
    description = str(metadata.get("description") or "")
    image = replace(
        image,
        created=image.created or _EPOCH,
        labels={
            **image.labels,
            LABEL_DEFINITION: canonical(definition_json).decode(),
            LABEL_NAME: name,
            LABEL_VERSION: version,
            LABEL_LAYERS: canonical(
                [
                    {"created_by": one.created_by, "cache_key": one.cache_key, "stage": one.stage}
                    for one in layers
                ]
            ).decode(),
        },
        diff_ids=tuple(one.layer.diff_id for one in layers),
        history=_history(image, layers),
    )
    config = image.to_bytes()
    stored = blobs.put(config)
    annotations = {_ANNOTATION + "title": name, _ANNOTATION + "version": version}
    if description:
        annotations[_ANNOTATION + "description"] = description
    manifest = Manifest(
        config=Descriptor(MEDIA_CONFIG, stored.digest, stored.size),
        layers=tuple(Descriptor(one.layer.media_type, one.layer.digest, one.layer.size) for one in layers),
        annotations=annotations,
    )
    digest = blobs.put(manifest.to_bytes()).digest
    return Package(digest, image, tuple(one.layer for one in layers), definition_json, name, version)


def _history(image: ImageSpec, layers: Sequence[BuiltLayer]) -> tuple[History, ...]:
    """The base's entries where they fit its layers, one for each layer since, one for the configuration."""
    created = image.created or _EPOCH
    base = len(image.diff_ids)
    inherited = tuple(image.history)
    fits = image.diff_ids == tuple(one.layer.diff_id for one in layers[:base])
    if not fits or base != sum(not entry.empty_layer for entry in inherited):
        inherited, base = (), 0
    return (
        *inherited,
        *(History(created=created, created_by=one.created_by) for one in layers[base:]),
        History(created=created, created_by="aos: configuration", empty_layer=True),
    )
