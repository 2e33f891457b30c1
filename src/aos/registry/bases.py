"""What a package was built on, as far as the local registry still knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aos.errors import AosError, FailedPrecondition, InvalidArgument
from aos.package.load import load_package

if TYPE_CHECKING:
    from aos.package.documents import BlobReader
    from aos.package.facts import Package
    from aos.registry.protocol import PackageRegistry

__all__ = ["local_base"]


def local_base(package: Package, registry: PackageRegistry, blobs: BlobReader) -> Package | None:
    """The package behind the `from` of a package; None for one from scratch.

    InvalidArgument (`base-unknown`) when only the caller can know it, FailedPrecondition (`base-moved`) when its
    name stands for something else now, NotFound (`package-not-found`)."""
    name = _external(package.definition)
    if name == "scratch":
        return None
    if not name or name.startswith("oci:"):
        what = f"it was built on {name}" if name else "it was not built by aos"
        raise InvalidArgument(
            f"{package.manifest_digest}: {what}, so its base has no name here",
            code="base-unknown",
            hint="name both: aos diff BASE PACKAGE",
        )
    try:
        base = load_package(blobs, registry.resolve(name))
    except AosError as error:
        error.message = f"the base {name!r}: {error.message}"
        raise
    if package.layers[: len(base.layers)] != base.layers:
        raise FailedPrecondition(
            f"{name} is not what {package.manifest_digest} was built on: it has been built or pulled again since",
            code="base-moved",
            hint=f"build the package again, or compare with what it is now: aos diff {name} PACKAGE",
            base=name,
        )
    return base


def _external(definition: dict[str, Any] | None) -> str:
    """The base at the bottom of the package's own stage; empty when there is no definition that says it."""
    stages = (definition or {}).get("stages")
    try:
        bases = {stage.get("name", ""): stage.get("base", "scratch") for stage in stages or []}
        name = str(stages[-1].get("base", "scratch")) if stages else ""
        for _ in bases:
            name = str(bases.get(name, name))
    except (AttributeError, TypeError, IndexError):
        return ""
    return name
