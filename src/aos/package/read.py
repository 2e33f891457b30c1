"""Bring the packages of an OCI image layout into a content store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aos.errors import InvalidArgument, NotFound
from aos.oci.index import Index, IndexEntry, host_platform, select
from aos.package.layouts import open_layout
from aos.package.load import load_package, manifest_of
from aos.package.sidecars import SIDECARS, check_sidecar
from aos.package.write import ANNOTATION_REF_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aos.content.protocol import Blobs
    from aos.oci.digest import Digest
    from aos.oci.index import Platform
    from aos.package.facts import Package
    from aos.package.layouts import Layout

__all__ = ["packages_in", "read_layout"]

_PIECE = 1 << 20


def read_layout(
    path: Path,
    blobs: Blobs,
    *,
    tag: str = "",
    platform: Platform | None = None,
    keep: Callable[[Digest], None] = lambda digest: None,
) -> list[tuple[str | None, Package]]:
    """Copy the packages of a layout (directory or archive) into the store, verified; their names with them.

    `tag` picks one by its name. `keep` is told each digest before it is stored (a lease's `add`). Nothing is
    read but the layout; sidecars that do not fit are refused (DataLoss `sidecar-mismatch`). Errors: those of
    `open_layout`, `packages_in` and `load_package`.
    """
    with open_layout(path) as layout:
        found = packages_in(layout, tag=tag, platform=platform)
        for _, package in found:
            _copy(package, layout, blobs, keep)
    return found


def packages_in(
    layout: Layout, *, tag: str = "", platform: Platform | None = None
) -> list[tuple[str | None, Package]]:
    """The packages that a layout's index names, and their names; checks the sidecars that are there.

    InvalidArgument `layout-invalid` without a usable index, NotFound `package-not-found` for a `tag` that it lacks."""
    data = layout.document("index.json")
    if data is None:
        raise InvalidArgument(f"{layout.path}: no index.json", code="layout-invalid", path=str(layout.path))
    entries: dict[str | None, list[IndexEntry]] = {}
    for entry in Index.from_bytes(data).manifests:
        entries.setdefault(entry.descriptor.annotations.get(ANNOTATION_REF_NAME), []).append(entry)
    if not entries:
        raise InvalidArgument(
            f"{layout.path}: the layout is empty", code="layout-invalid", path=str(layout.path)
        )
    if tag and tag not in entries:
        raise NotFound(
            f"{layout.path} has no {tag!r}",
            code="package-not-found",
            hint="it has: "
            + ", ".join(sorted(repr(name) if name else "one without a name" for name in entries)),
            path=str(layout.path),
        )
    platform = platform or host_platform()
    found: list[tuple[str | None, Package]] = []
    for name, group in entries.items():
        if tag in ("", name):
            descriptor = group[0].descriptor if len(group) == 1 else select(Index(tuple(group)), platform)
            found.append((name, load_package(layout, descriptor.digest, platform=platform)))
    _check_sidecars(layout, [package for _, package in found], alone=len(entries) == 1)
    return found


def _check_sidecars(layout: Layout, packages: list[Package], *, alone: bool) -> None:
    """The sidecars describe one package of the layout: the one whose digest layers.json names."""
    there = {name: data for name in SIDECARS if (data := layout.document(name)) is not None}
    if "layers.json" not in there and all(package.definition is None for package in packages):
        return  # `docker save` writes a manifest.json of its own
    try:
        digest = json.loads(there.get("layers.json", b""))["digest"]
    except (ValueError, KeyError, TypeError, RecursionError):
        digest = ""
    described = [package for package in packages if package.manifest_digest == digest]
    if not described and alone:
        described = packages
    for package in described:
        for name, data in there.items():
            check_sidecar(package, name, data, str(layout.path))


def _copy(package: Package, layout: Layout, blobs: Blobs, keep: Callable[[Digest], None]) -> None:
    """Layers and config first, the manifest last: a manifest in the store has what it refers to."""
    manifest = manifest_of(layout, package.manifest_digest)
    digests = [*(layer.digest for layer in manifest.layers), manifest.config.digest, package.manifest_digest]
    for digest in dict.fromkeys(digests):
        keep(digest)
        if blobs.exists(digest):
            continue
        with layout.open(digest) as stream, blobs.writer() as writer:
            while piece := stream.read(_PIECE):
                writer.write(piece)
            writer.commit(digest)
