"""manifest.json, layers.json and signature.json: views of a package for people and tools without an OCI library.

Derived from the image alone; checked against it wherever a layout comes in; read by nothing that runs agents.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aos.errors import DataLoss
from aos.package.facts import layer_facts

if TYPE_CHECKING:
    from aos.package.facts import Package

__all__ = ["SIDECARS", "check_sidecar", "sidecars"]

SIDECARS = ("manifest.json", "layers.json", "signature.json")


def sidecars(package: Package) -> dict[str, bytes]:
    """The files by name. An image that AOS did not build has no manifest.json: it has no definition."""
    views: dict[str, Any] = {} if package.definition is None else {"manifest.json": package.definition}
    views["layers.json"] = {
        "name": package.name,
        "version": package.version,
        "digest": package.manifest_digest,
        "layers": [
            {
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "size": layer.size,
                "created_by": facts.created_by,
                "cache_key": facts.cache_key,
                "stage": facts.stage,
            }
            for layer, facts in zip(package.layers, layer_facts(package), strict=True)
        ],
    }
    views["signature.json"] = {"digest": package.manifest_digest, "signatures": []}
    return {name: _text(view) for name, view in views.items()}


def check_sidecar(package: Package, name: str, data: bytes, where: str) -> None:
    """DataLoss (`sidecar-mismatch`) unless the file says what the image says; names the field that differs."""
    expected = sidecars(package).get(name)
    try:
        found = json.loads(data)
        field = "" if expected is None else _difference(json.loads(expected), found, "")
    except (ValueError, RecursionError):
        field = ""
    if field is None:
        return
    raise DataLoss(
        f"{where}: {name} does not say what the image says" + (f": {field} differs" if field else ""),
        code="sidecar-mismatch",
        hint=f"the image is the truth; delete {name} and it is derived again, or copy the package again",
        file=name,
        field=field,
    )


def _text(view: object) -> bytes:
    return json.dumps(view, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _difference(expected: Any, found: Any, path: str) -> str | None:
    """The path of the first difference, as in `layers[2].size`; None when there is none."""
    if type(expected) is not type(found):
        return path or "."
    if isinstance(expected, dict):
        for key in sorted(expected.keys() | found.keys()):
            inner = f"{path}.{key}" if path else str(key)
            if key not in expected or key not in found:
                return inner
            difference = _difference(expected[key], found[key], inner)
            if difference is not None:
                return difference
        return None
    if isinstance(expected, list):
        for at, (left, right) in enumerate(zip(expected, found, strict=False)):
            difference = _difference(left, right, f"{path}[{at}]")
            if difference is not None:
                return difference
        return None if len(expected) == len(found) else f"{path}[{min(len(expected), len(found))}]"
    return None if expected == found else path or "."
