"""Package: what is known of one AAP, and the labels of the image config that carry it.

The labels are part of the config blob, so of the manifest digest, so of every signature over it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.oci.digest import Digest
    from aos.oci.image import ImageSpec
    from aos.oci.layer import Layer

__all__ = [
    "LABEL_DEFINITION",
    "LABEL_LAYERS",
    "LABEL_NAME",
    "LABEL_VERSION",
    "BuiltLayer",
    "LayerFacts",
    "Package",
    "canonical",
    "definition_of",
    "layer_facts",
]

_PREFIX = "aos.openos.dev/"
LABEL_DEFINITION = _PREFIX + "definition"
"""The resolved definition, canonical JSON."""
LABEL_NAME = _PREFIX + "name"
LABEL_VERSION = _PREFIX + "version"
LABEL_LAYERS = _PREFIX + "layers"
"""A JSON list, base first, of `{"created_by", "cache_key", "stage"}`, one for each layer."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package or foreign image, verified down to the existence and size of its layers."""

    manifest_digest: Digest
    image: ImageSpec
    layers: tuple[Layer, ...]
    """Base first; media types are OCI's, also where the manifest has Docker's."""
    definition: dict[str, Any] | None
    """`Definition.to_json`; None for an image that AOS did not build."""
    name: str
    version: str

    @property
    def size(self) -> int:
        """Bytes of the layers as stored."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """Where a layer came from; empty strings where nobody knows."""

    created_by: str = ""
    cache_key: str = ""
    stage: str = ""


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer in the content store, and where it came from."""

    layer: Layer
    created_by: str
    """The step, as a person would write it."""
    cache_key: str
    stage: str


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8: the same value gives the same bytes on every machine."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def definition_of(labels: Mapping[str, str]) -> dict[str, Any] | None:
    """The definition that the labels carry; InvalidArgument (`package-invalid`) when it is not one."""
    text = labels.get(LABEL_DEFINITION)
    if text is None:
        return None
    definition = _decode(text, LABEL_DEFINITION)
    if not isinstance(definition, dict):
        raise _invalid(LABEL_DEFINITION, "not a JSON object")
    return definition


def layer_facts(package: Package) -> tuple[LayerFacts, ...]:
    """One for each layer: from the label; for foreign images, from the config's history where that fits."""
    text = package.image.labels.get(LABEL_LAYERS)
    if text is None:
        steps = [entry.created_by for entry in package.image.history if not entry.empty_layer]
        if len(steps) != len(package.layers):
            steps = [""] * len(package.layers)
        return tuple(LayerFacts(created_by=step) for step in steps)
    raw = _decode(text, LABEL_LAYERS)
    if not isinstance(raw, list) or len(raw) != len(package.layers):
        raise _invalid(LABEL_LAYERS, f"not a list of {len(package.layers)} entries, one for each layer")
    facts = []
    for item in raw:
        if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
            raise _invalid(LABEL_LAYERS, "an entry that is not an object of strings")
        facts.append(LayerFacts(item.get("created_by", ""), item.get("cache_key", ""), item.get("stage", "")))
    return tuple(facts)


def _decode(text: str, label: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(label, "not JSON") from error


def _invalid(label: str, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"the image's label {label} is damaged: {what}",
        code="package-invalid",
        hint="build the package again",
        label=label,
    )
