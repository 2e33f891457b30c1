"""A package, and what is different between two, as JSON: what `packages inspect` and `diff` print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aos.package.sidecars import sidecars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.package.compare import FileChange, PackageDiff
    from aos.package.facts import Package
    from aos.package.files import File

__all__ = ["describe", "describe_diff"]


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


def describe_diff(diff: PackageDiff, shown: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-representable facts of a diff. `shown`: the changes to tell, by section (packages, config, files)."""
    facts: dict[str, Any] = {
        "same": not any(shown.values()),
        "before": _sums(diff.before, diff.unpacked[0]) if diff.before else None,
        "after": _sums(diff.after, diff.unpacked[1]),
        "shared_layers": diff.shared_layers,
    }
    if "packages" in shown:
        facts["packages"] = [
            {
                "change": one.change,
                "manager": one.known.manager,
                "name": one.known.name,
                "before": one.before and one.before.version,
                "after": one.after and one.after.version,
            }
            for one in shown["packages"]
        ]
    if "config" in shown:
        facts["config"] = [
            {"change": one.change, "field": one.field, "before": one.before, "after": one.after}
            for one in shown["config"]
        ]
    if "files" in shown:
        facts["files"] = [_file_change(diff, one) for one in shown["files"]]
    return facts


def _file_change(diff: PackageDiff, change: FileChange) -> dict[str, Any]:
    before, after = diff.responsible(change)
    return {
        "path": _text(f"/{change.path}"),
        "change": change.change,
        "aspects": list(change.aspects),
        "before": change.before and _file(change.before, before),
        "after": change.after and _file(change.after, after),
        "removed_by": after if change.after is None and after else None,
    }


def _file(file: File, created_by: str) -> dict[str, Any]:
    return {
        "type": file.kind,
        "mode": f"{file.mode:04o}",
        "uid": file.uid,
        "gid": file.gid,
        "mtime": file.mtime_ns / 1e9,
        "size": file.size,
        "sha256": file.content.hex() or None,
        "link": _text(file.link) or None,
        "device": list(file.device) if file.device else None,
        "xattrs": {_text(name): _text(value) for name, value in file.xattrs},
        "layer": file.layer,
        "created_by": created_by,
    }


def _sums(package: Package, unpacked: int) -> dict[str, Any]:
    return {
        "digest": package.manifest_digest,
        "name": package.name,
        "version": package.version,
        "size": package.size,
        "unpacked_size": unpacked,
        "layers": len(package.layers),
    }


def _text(text: str) -> str:
    """Valid Unicode: bytes of a name that are not UTF-8 become `\\xNN`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
