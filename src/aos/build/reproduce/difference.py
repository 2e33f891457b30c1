"""What is said when two builds of the same inputs gave two packages: which files, why, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.build.cache.local import Cache
from aos.build.explain.records import Records
from aos.errors import FailedPrecondition, NotFound
from aos.package.compare import compare
from aos.package.difference import Difference, first_differences, package_differences
from aos.package.sources import LayerSource

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import IO

    from aos.build.request import BuildServices
    from aos.content.protocol import BlobInfo, Blobs
    from aos.oci.digest import Digest
    from aos.package import Package
    from aos.package.compare import SoftwareChange

__all__ = ["Built", "not_reproducible"]

_SHOWN = 10
"""Differences that are told: a screen."""
_SOFTWARE_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Built:
    """One of the two builds."""

    package: Package
    services: BuildServices
    """What it worked with."""
    id: str
    """Of the build."""


def not_reproducible(before: Built, after: Built) -> FailedPrecondition:
    """FailedPrecondition (`not-reproducible`) that tells the first differences of two builds.

    Of the steps those that gave something else for the same inputs, also when nothing of it reached the package but
    what other steps are known by. What follows from them is no news. Only without any the packages are compared.
    """
    stores = before.services.content.blobs, after.services.content.blobs
    packages = before.package, after.package
    software = compare(_Either(*stores), *packages).software
    differences = _causes(before, after, _SHOWN + 1) or package_differences(
        (before.package, stores[0]), (after.package, stores[1]), limit=_SHOWN + 1
    )
    lines = [_software_line(change) for change in software[:_SOFTWARE_SHOWN]]
    if len(software) > _SOFTWARE_SHOWN:
        lines.append(f"… and {len(software) - _SOFTWARE_SHOWN} more packages")
    for difference in differences[:_SHOWN]:
        lines += difference.lines()
    if len(differences) > _SHOWN:
        lines.append("… and more")
    said = "\n".join(f"    {line}" for line in lines)
    return FailedPrecondition(
        f"the same inputs gave {packages[0].manifest_digest} and, built again, {packages[1].manifest_digest}:\n{said}",
        code="not-reproducible",
        hint=_hint(software, differences),
        before=packages[0].manifest_digest,
        after=packages[1].manifest_digest,
        software=[_software_line(change) for change in software],
        differences=[
            {"where": one.where, "why": one.why, "before": one.before, "after": one.after, "step": one.step}
            for one in differences[:_SHOWN]
        ],
    )


def _causes(before: Built, after: Built, limit: int) -> list[Difference]:
    """What is different in the results of vertices whose cache keys, so inputs, are the same."""
    sides = before.services, after.services
    try:
        records = [
            Records(built.services.directory / "records").find(built.id)[0] for built in (before, after)
        ]
    except NotFound:  # nobody could write it
        return []
    caches = [Cache(services.directory / "cache", services.content) for services in sides]
    found: list[Difference] = []
    for old, new in zip(records[0].vertices, records[1].vertices, strict=True):
        if not old.key or old.key != new.key or old.result == new.result or len(found) >= limit:
            continue
        step = f"{old.stage}: {old.created_by}" if old.stage else old.created_by
        entries = [entry for cache in caches if (entry := cache.get(old.key)) is not None]
        layers = [
            LayerSource(services.content.blobs, entry.layer)
            for services, entry in zip(sides, entries, strict=False)
            if entry.layer is not None
        ]
        if len(layers) == 2:
            found += first_differences(*layers, limit=limit - len(found), step=step)
        elif len(entries) == 2:  # else it was pruned meanwhile
            one, two = ("a layer" if entry.layer else "nothing" for entry in entries)
            found.append(Difference("what the step gave", "layers", one, two, step=step))
    return found


def _software_line(change: SoftwareChange) -> str:
    versions = [one.version if one else "none" for one in (change.before, change.after)]
    return f"{change.known.manager} package {change.known.name}: {' -> '.join(versions)}"


def _hint(software: Iterable[SoftwareChange], differences: Iterable[Difference]) -> str:
    if software:
        return "an index or a mirror has moved on between the builds: `aos lock` pins what names stand for"
    whys, steps = {one.why for one in differences}, {one.step for one in differences if one.step}
    where = f"`{min(steps):.60}`" if len(steps) == 1 else "the steps"
    if not steps:
        return "a base or the environment is not the same twice"
    if whys <= {"only before", "only after"}:
        return (
            f"{where} gave other names: random ones, dates, counters; give them fixed names, or remove them"
        )
    if whys <= {"order", "header", "compression"}:
        return "the layers say the same with other bytes, which is a defect of aos: please report it"
    return (
        f"{where} wrote what is different each time: dates (SOURCE_DATE_EPOCH is set for it), random numbers, an"
        " order of files or threads; correct it there, or remove the file in the same step"
    )


@dataclass(frozen=True, slots=True)
class _Either:
    """Two stores, read as one."""

    one: Blobs
    two: Blobs

    def _with(self, digest: Digest) -> Blobs:
        return self.one if self.one.exists(digest) else self.two

    def read(self, digest: Digest) -> bytes:
        return self._with(digest).read(digest)

    def open(self, digest: Digest) -> AbstractContextManager[IO[bytes]]:
        return self._with(digest).open(digest)

    def stat(self, digest: Digest) -> BlobInfo:
        return self._with(digest).stat(digest)

    def exists(self, digest: Digest) -> bool:
        return self.one.exists(digest) or self.two.exists(digest)
