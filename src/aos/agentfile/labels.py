"""Labels that a build is asked for beside those of the Agentfile (`aos build --label`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aos.agentfile.read import belongs_to_aos
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.agentfile.definition import Definition

__all__ = ["labelled"]


def labelled(definition: Definition, words: Sequence[str]) -> Definition:
    """The definition with `KEY=VALUE` labels, which win over its own; `KEY` alone is an empty one.
    InvalidArgument `usage`."""
    if not words:
        return definition
    labels = dict(definition.metadata.labels)
    for word in words:
        key, _, value = word.partition("=")
        if not key:
            raise InvalidArgument(f"--label takes KEY=VALUE, not {word!r:.80}", code="usage")
        if belongs_to_aos(key):
            raise InvalidArgument(
                f"the label {key!r:.80} belongs to aos", code="usage", hint="choose another name"
            )
        labels[key] = value
    metadata = replace(definition.metadata, labels=tuple(sorted(labels.items())))
    return replace(definition, metadata=metadata)
