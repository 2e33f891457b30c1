"""Move packages between the local store, registries and layouts on disk; and check them.

What the verbs push, pull and verify do. A *location* is a reference, or as skopeo and podman write them
`oci:DIR[:TAG]` (a layout) and `oci-archive:FILE[:TAG]` (a tar of one).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.errors import AosError, InvalidArgument
from aos.oci.reference import Reference, parse_reference
from aos.package.describe import describe
from aos.package.layouts import open_layout
from aos.package.load import load_package
from aos.package.read import packages_in, read_layout
from aos.package.sidecars import SIDECARS
from aos.package.verify import Check, verify_package
from aos.package.write import write_archive, write_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aos.content.store import ContentStore
    from aos.package.facts import Package
    from aos.registry.client import DistributionClient
    from aos.registry.protocol import Entry, PackageRegistry

__all__ = ["Exchange", "LayoutLocation", "parse_location"]


@dataclass(frozen=True, slots=True)
class LayoutLocation:
    """A layout on disk, and which of its packages."""

    path: Path
    tag: str = ""
    archive: bool = False


def parse_location(text: str) -> Reference | LayoutLocation:
    """`oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, else a reference (InvalidArgument `reference-invalid`)."""
    kind, separator, rest = text.partition(":")
    if not separator or kind not in ("oci", "oci-archive"):
        return parse_reference(text)
    path, separator, tag = rest.rpartition(":")
    if not separator or "/" in tag:
        path, tag = rest, ""
    if not path:
        raise InvalidArgument(
            f"{text!r} names no path", code="reference-invalid", hint=f"write {kind}:PATH or {kind}:PATH:TAG"
        )
    return LayoutLocation(Path(path), tag, kind == "oci-archive")


class Exchange:
    """One installation's way in and out for packages."""

    def __init__(
        self,
        content: ContentStore,
        registry: PackageRegistry,
        connect: Callable[[], DistributionClient],
    ) -> None:
        self._content = content
        self._registry = registry
        self._connect = connect

    def load(self, reference: str) -> Package:
        """A package of the local store."""
        return load_package(self._content.blobs, self._registry.resolve(reference))

    def inspect(self, reference: str) -> dict[str, Any]:
        """What a local package is, and every reference to it."""
        package = self.load(reference)
        names = [
            entry.reference for entry in self._registry.list() if entry.digest == package.manifest_digest
        ]
        return {"references": names, **describe(package)}

    def pull(self, source: str) -> list[Entry]:
        """Fetch what a registry or a layout has, verified, and name it here; the names given."""
        location = parse_location(source)
        with self._content.leases.hold("pull") as lease:
            if isinstance(location, LayoutLocation):
                found = read_layout(location.path, self._content.blobs, tag=location.tag, keep=lease.add)
                return [self._tag(_local_name(name, package, location), package) for name, package in found]

            async def fetch(reference: Reference) -> Package:
                async with self._connect() as client:
                    return await client.pull(reference, lease)

            return [self._tag(location, asyncio.run(fetch(location)))]

    def push(self, reference: str, destination: str | None = None) -> tuple[Package, str]:
        """Send a package of the local store to a registry (default: the one its reference names) or write it
        as a layout; the package, and where it is now."""
        location = parse_location(destination or reference)
        with self._content.leases.hold("push") as lease:
            lease.add(self._registry.resolve(reference))
            package = self.load(reference)
            if isinstance(location, LayoutLocation):
                write = write_archive if location.archive else write_layout
                write(package, self._content.blobs, location.path, tag=location.tag)
                return package, str(location.path)

            async def send(reference: Reference) -> None:
                async with self._connect() as client:
                    await client.push(reference, package)

            asyncio.run(send(location))
            return package, str(location)

    def verify(self, target: str) -> Iterator[Check]:
        """Everything that was checked of a local package, or of a layout at a path; problems are in the checks."""
        layout = _layout_at(target)
        if layout is None:
            yield from verify_package(self.load(target), self._content.blobs)
            return
        with open_layout(layout.path) as opened:
            found = [package for _, package in packages_in(opened, tag=layout.tag)]
            for package in found:
                yield from verify_package(package, opened)
            there = [name for name in SIDECARS if opened.document(name) is not None]
            if "layers.json" in there or any(package.definition for package in found):
                yield from (Check("sidecar", name, "says what the image says") for name in there)

    def _tag(self, reference: Reference, package: Package) -> Entry:
        return self._registry.tag(
            reference, package.manifest_digest, name=package.name, version=package.version, size=package.size
        )


def _layout_at(target: str) -> LayoutLocation | None:
    """The layout that a target means: it says so, it is written as a path, or it is one."""
    path = Path(target)
    if target.startswith(("oci:", "oci-archive:")):
        location = parse_location(target)
        return location if isinstance(location, LayoutLocation) else None
    is_path = target.startswith(("/", "./", "../")) or target in (".", "..")
    return LayoutLocation(path) if is_path or path.is_file() or (path / "oci-layout").is_file() else None


def _local_name(name: str | None, package: Package, location: LayoutLocation) -> Reference:
    """What an imported package is called here: its own name, else the layout's file name, and its tag there."""
    tag = name or package.version or "latest"
    if name and ("/" in name or ":" in name):
        return parse_reference(name)
    repository = package.name or location.path.resolve().name.partition(".")[0].lower()
    try:
        return parse_reference(f"{repository}:{tag.replace('+', '_')}")
    except AosError as error:
        raise InvalidArgument(
            f"{location.path}: cannot make a name of {repository!r} and {tag!r}",
            code="reference-invalid",
            hint="rename the directory to a lower-case name",
        ) from error
