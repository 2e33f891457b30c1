"""The content store, registries, and what is read of packages."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from aos.config import Config
    from aos.content.store import ContentStore
    from aos.oci.descriptor import Descriptor
    from aos.oci.digest import Digest
    from aos.package import Package
    from aos.package.compare import PackageDiff
    from aos.package.history import HistoryEntry
    from aos.package.usage import PackageUsage, RegistryUsage
    from aos.registry.client import DistributionClient
    from aos.registry.exchange import Exchange
    from aos.registry.local import LocalRegistry


__all__ = [
    "content_store",
    "exchange",
    "kept_packages",
    "local_registry",
    "package_diff",
    "package_diff_facts",
    "package_history",
    "package_usage",
    "registry_usage",
]


def content_store(config: Config) -> ContentStore:
    from aos.content.store import ContentStore

    return ContentStore(config.root / "content")


def local_registry(config: Config, content: ContentStore) -> LocalRegistry:
    from aos.registry.local import LocalRegistry

    return LocalRegistry(config.root / "registry", content)


def exchange(
    config: Config,
    environ: Mapping[str, str],
    *,
    plain_http: bool = False,
    report: Callable[[Descriptor, str], None] | None = None,
) -> Exchange:
    """The way in and out for packages; the HTTP stack is imported when a registry is talked to."""
    from aos.registry.exchange import Exchange

    content = content_store(config)

    def connect() -> DistributionClient:
        from aos.registry.client import DistributionClient

        return DistributionClient(content, environ, plain_http=plain_http, report=report)

    return Exchange(content, local_registry(config, content), connect)


def package_history(config: Config, reference: str, *, sizes: bool) -> list[tuple[HistoryEntry, int | None]]:
    """The layers of a local package, newest first; with `sizes` each is read for what it unpacks to."""
    from aos.package.history import history, unpacked_size

    with kept_packages(config, reference) as (content, _, (package,)):
        return [
            (entry, unpacked_size(content.blobs, entry.layer) if sizes and entry.layer else None)
            for entry in history(package)
        ]


def package_diff(config: Config, first: str, second: str | None, *, times: bool = False) -> PackageDiff:
    """What is different from `first` to `second`; without that, from the base of `first` to `first`."""
    from aos.package.compare import compare

    with kept_packages(config, first, *([second] if second else [])) as (content, registry, packages):
        if second is None:
            from aos.registry.bases import local_base

            return compare(
                content.blobs, local_base(packages[0], registry, content.blobs), packages[0], times=times
            )
        return compare(content.blobs, packages[0], packages[1], times=times)


def package_diff_facts(diff: PackageDiff, shown: Mapping[str, Any]) -> dict[str, Any]:
    """A diff as JSON, with the sections in `shown` (packages, config, files)."""
    from aos.package.describe import describe_diff

    return describe_diff(diff, shown)


def package_usage(config: Config, reference: str, *, count: int) -> PackageUsage:
    """Where the bytes of a local package are; its layers know which other local packages have them."""
    from aos.package.usage import inside

    with kept_packages(config, reference) as (content, registry, (package,)):
        others = [known for known, _ in _named(content, registry).values()]
        return inside(content.blobs, package, others, count=count)


def registry_usage(config: Config) -> RegistryUsage:
    """How the packages of the local registry share what is stored."""
    from aos.package.usage import shared

    content = content_store(config)
    return shared(_named(content, local_registry(config, content)))


def _named(content: ContentStore, registry: LocalRegistry) -> dict[Digest, tuple[Package, list[str]]]:
    """Every package that has a name here, and its names."""
    from aos.package import load_package

    found: dict[Digest, tuple[Package, list[str]]] = {}
    for entry in registry.list():
        if entry.digest not in found:
            found[entry.digest] = (load_package(content.blobs, entry.digest), [])
        found[entry.digest][1].append(entry.reference)
    return found


@contextlib.contextmanager
def kept_packages(
    config: Config, *references: str
) -> Iterator[tuple[ContentStore, LocalRegistry, list[Package]]]:
    """Local packages that no collection takes away while they are looked at."""
    from aos.package import load_package

    content = content_store(config)
    registry = local_registry(config, content)
    with content.leases.hold("look") as lease:
        packages = []
        for reference in references:
            lease.add(digest := registry.resolve(reference))
            packages.append(load_package(content.blobs, digest))
        yield content, registry, packages
