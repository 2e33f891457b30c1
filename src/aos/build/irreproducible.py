"""What is said when two builds of the same inputs gave two packages: which files, why, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition
from aos.package.compare import compare
from aos.package.difference import package_differences

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import IO

    from aos.content.protocol import BlobInfo, Blobs
    from aos.oci.digest import Digest
    from aos.package import Package
    from aos.package.compare import SoftwareChange
    from aos.package.difference import Difference

__all__ = ["not_reproducible"]

_SHOWN = 10
"""Differences that are told: a screen."""
_SOFTWARE_SHOWN = 20


def not_reproducible(before: tuple[Package, Blobs], after: tuple[Package, Blobs]) -> FailedPrecondition:
    """FailedPrecondition (`not-reproducible`) that tells the first differences of two packages."""
    software = compare(_Either(before[1], after[1]), before[0], after[0]).software
    differences = package_differences(before, after, limit=_SHOWN + 1)
    lines = [_software_line(change) for change in software[:_SOFTWARE_SHOWN]]
    if len(software) > _SOFTWARE_SHOWN:
        lines.append(f"… and {len(software) - _SOFTWARE_SHOWN} more packages")
    for difference in differences[:_SHOWN]:
        lines += difference.lines()
    if len(differences) > _SHOWN:
        lines.append("… and more")
    said = "\n".join(f"    {line}" for line in lines)
    return FailedPrecondition(
        f"the same inputs gave {before[0].manifest_digest} and, built again, {after[0].manifest_digest}:\n{said}",
        code="not-reproducible",
        hint=_hint(software, differences),
        before=before[0].manifest_digest,
        after=after[0].manifest_digest,
        software=[_software_line(change) for change in software],
        differences=[
            {"where": one.where, "why": one.why, "before": one.before, "after": one.after, "step": one.step}
            for one in differences[:_SHOWN]
        ],
    )


def _software_line(change: SoftwareChange) -> str:
    versions = [one.version if one else "none" for one in (change.before, change.after)]
    return f"{change.known.manager} package {change.known.name}: {' -> '.join(versions)}"


def _hint(software: Iterable[SoftwareChange], differences: Iterable[Difference]) -> str:
    if software:
        return "an index or a mirror has moved on between the builds: `aos lock` pins what names stand for"
    whys, steps = {one.why for one in differences}, {one.step for one in differences if one.step}
    where = f"`{min(steps):.60}`" if len(steps) == 1 else "the steps"
    if whys <= {"config", "layers"}:
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
