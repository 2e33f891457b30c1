"""`from:` a reference or an OCI layout: find the package or image that a stage stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.build.plan.graph import State
from aos.errors import AosError, InvalidArgument, NotFound
from aos.oci.digest import Digest
from aos.package import BuiltLayer, layer_facts, load_package, read_layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aos.build.plan.graph import Vertex
    from aos.content.protocol import Blobs
    from aos.package import Package
    from aos.registry.protocol import PackageRegistry

__all__ = ["base_state", "find_base"]

_LAYOUT = "oci:"


def find_base(
    vertex: Vertex,
    context: Path,
    blobs: Blobs,
    registry: PackageRegistry,
    keep: Callable[[Digest], None],
    *,
    locked: str = "",
) -> Package:
    """The package behind `vertex.base`; `keep` is told every digest that must not be collected.

    `locked`: the digest that a lock has for it, which is enough where nothing has the name any more.

    Raise NotFound (`base-not-found`, near names in its hint), InvalidArgument (`base-ambiguous`), and what
    `load_package` and `read_layout` raise, each naming where the Agentfile asks for it.
    """
    where = f"{vertex.location}: " if vertex.location else ""
    try:
        if vertex.base.startswith(_LAYOUT):
            return _from_layout(vertex.base, context, blobs, keep)
        digest = _resolve(vertex.base, locked, blobs, registry)
        keep(digest)
        package = load_package(blobs, digest)
        for layer in package.layers:
            keep(layer.digest)
        return package
    except NotFound as error:
        raise NotFound(
            f"{where}the base {vertex.base!r} cannot be found: {error.message}",
            code="base-not-found",
            hint=error.hint,
            base=vertex.base,
        ) from error
    except AosError as error:
        if error.code == "reference-invalid" and vertex.base.startswith((".", "/")):
            error.hint = f"an OCI layout on disk is written oci:{vertex.base}"
        error.message = f"{where}the base {vertex.base!r}: {error.message}"
        raise


def _resolve(base: str, locked: str, blobs: Blobs, registry: PackageRegistry) -> Digest:
    try:
        return registry.resolve(base)
    except NotFound:
        if locked and blobs.exists(Digest(locked)):
            return Digest(locked)
        raise


def base_state(package: Package, created_by: str) -> State:
    """What steps see of a base."""
    pairs = (text.partition("=") for text in package.image.env)
    env = tuple((name, value) for name, _, value in pairs)
    state = State((), env, package.image.working_dir, package.manifest_digest)
    for layer, facts in zip(package.layers, layer_facts(package), strict=True):
        state = state.on_top(BuiltLayer(layer, facts.created_by or created_by, facts.cache_key, facts.stage))
    return state


def _from_layout(base: str, context: Path, blobs: Blobs, keep: Callable[[Digest], None]) -> Package:
    """`oci:DIRECTORY[:TAG]`; a relative directory is relative to the context."""
    name = base.removeprefix(_LAYOUT)
    path, tag = context / name, ""
    if not path.exists() and ":" in name:
        name, _, tag = name.rpartition(":")
        path = context / name
    found = read_layout(path, blobs, tag=tag, keep=keep)
    if len(found) != 1:
        names = ", ".join(f"{base}:{name}" for name, _ in found if name)
        raise InvalidArgument(
            f"the layout holds {len(found)} packages", code="base-ambiguous", hint=f"name one: {names}"
        )
    return found[0][1]
