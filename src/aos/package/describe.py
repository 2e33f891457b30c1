"""A package in words: what `aos packages inspect` shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aos.package.sidecars import sidecars

if TYPE_CHECKING:
    from aos.package.facts import Package

__all__ = ["describe"]


def describe(package: Package) -> dict[str, Any]:
    """JSON-representable facts."""
    image = package.image
    metadata = (package.definition or {}).get("metadata")
    return {
        "digest": package.manifest_digest,
        "name": package.name,
        "version": package.version,
        "description": metadata.get("description", "") if isinstance(metadata, dict) else "",
        "platform": f"{image.os}/{image.architecture}",
        "created": image.created,
        "size": package.size,
        "config": {
            "env": list(image.env),
            "entrypoint": list(image.entrypoint),
            "cmd": list(image.cmd),
            "working_dir": image.working_dir,
            "user": image.user,
            "stop_signal": image.stop_signal,
        },
        "definition": package.definition,
        "layers": json.loads(sidecars(package)["layers.json"])["layers"],
    }
