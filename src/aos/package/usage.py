"""Where the bytes of packages are: layers that several share, and the directories, software and files of one. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.package.facts import layer_facts
from aos.package.files import merge, read_layers
from aos.package.software import installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aos.oci.digest import Digest
    from aos.oci.layer import Layer
    from aos.package.documents import BlobReader
    from aos.package.facts import Package
    from aos.package.files import File
    from aos.package.software import Software

__all__ = ["DirectoryUse", "LayerUse", "PackageUsage", "PackageUse", "RegistryUsage", "inside", "shared"]


@dataclass(frozen=True, slots=True)
class LayerUse:
    layer: Layer
    created_by: str
    packages: tuple[Digest, ...]
    """Manifests that have the layer."""
    unpacked: int | None = None
    """Bytes of its tar; None where it was not read."""


@dataclass(frozen=True, slots=True)
class PackageUse:
    digest: Digest
    references: tuple[str, ...]
    size: int
    """Bytes of its layers as stored."""
    unique: int
    """Of these, what no other package has: what removing it would free."""

    @property
    def shared(self) -> int:
        return self.size - self.unique


@dataclass(frozen=True, slots=True)
class RegistryUsage:
    packages: tuple[PackageUse, ...]
    layers: tuple[LayerUse, ...]
    """The largest first."""

    @property
    def size(self) -> int:
        """Bytes stored, each layer counted once."""
        return sum(use.layer.size for use in self.layers)


@dataclass(frozen=True, slots=True)
class DirectoryUse:
    path: str
    size: int
    """Bytes of the files in it and below it."""
    files: int


@dataclass(frozen=True, slots=True)
class PackageUsage:
    layers: tuple[LayerUse, ...]
    """Base first."""
    size: int
    """Bytes of all files that are seen."""
    files: int
    directories: tuple[DirectoryUse, ...]
    software: tuple[Software, ...]
    largest: tuple[File, ...]
    hidden: tuple[File, ...]
    """Regular files that later layers removed or replaced, the largest first; they are stored and never seen."""

    @property
    def hidden_size(self) -> int:
        return sum(file.size for file in self.hidden)


def shared(packages: Mapping[Digest, tuple[Package, Sequence[str]]]) -> RegistryUsage:
    """How packages, each with its references, share layers."""
    users = _users(package for package, _ in packages.values())
    layers: dict[Digest, LayerUse] = {}
    uses = []
    for digest, (package, references) in packages.items():
        own = {layer.digest: layer for layer in package.layers}
        for layer, facts in zip(package.layers, layer_facts(package), strict=True):
            layers.setdefault(layer.digest, LayerUse(layer, facts.created_by, users[layer.digest]))
        unique = sum(layer.size for layer in own.values() if users[layer.digest] == (digest,))
        uses.append(PackageUse(digest, tuple(references), sum(layer.size for layer in own.values()), unique))
    largest = sorted(layers.values(), key=lambda use: (-use.layer.size, use.layer.digest))
    return RegistryUsage(tuple(uses), tuple(largest))


def inside(
    blobs: BlobReader, package: Package, others: Iterable[Package] = (), *, count: int
) -> PackageUsage:
    """Where the bytes of one package are; `count` of the largest of each kind. Reads every layer."""
    users = _users([package, *(one for one in others if one.manifest_digest != package.manifest_digest)])
    read = read_layers(blobs, package.layers)
    merged = merge(read[layer.diff_id] for layer in package.layers)
    files = [file for file in merged.files.values() if file.kind == "file"]
    software = [one for one in installed(merged.files.values()) if one.size]
    return PackageUsage(
        layers=tuple(
            LayerUse(layer, facts.created_by, users[layer.digest], read[layer.diff_id].unpacked)
            for layer, facts in zip(package.layers, layer_facts(package), strict=True)
        ),
        size=sum(file.size for file in files),
        files=len(files),
        directories=_directories(files, count),
        software=tuple(heapq.nsmallest(count, software, key=lambda one: (-one.size, one))),
        largest=tuple(heapq.nsmallest(count, files, key=lambda file: (-file.size, file.path))),
        hidden=tuple(sorted(merged.hidden, key=lambda file: (-file.size, file.path))),
    )


def _users(packages: Iterable[Package]) -> dict[Digest, tuple[Digest, ...]]:
    """The manifests that have each layer."""
    users: dict[Digest, tuple[Digest, ...]] = {}
    for package in packages:
        for layer in dict.fromkeys(one.digest for one in package.layers):
            users[layer] = (*users.get(layer, ()), package.manifest_digest)
    return users


def _directories(files: Iterable[File], count: int) -> tuple[DirectoryUse, ...]:
    """The largest directories, without those of which one directory inside makes nine tenths: it says more."""
    sizes: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for file in files:
        path = file.path
        while path:
            path = path.rpartition("/")[0]
            sizes[path] = sizes.get(path, 0) + file.size
            numbers[path] = numbers.get(path, 0) + 1
    most: dict[str, int] = {}
    for path, size in sizes.items():
        parent = path.rpartition("/")[0]
        if path and size > most.get(parent, 0):
            most[parent] = size
    telling = [path for path, size in sizes.items() if path and most.get(path, 0) * 10 < size * 9]
    chosen = heapq.nsmallest(count, telling, key=lambda path: (-sizes[path], path))
    return tuple(DirectoryUse(path, sizes[path], numbers[path]) for path in chosen)
