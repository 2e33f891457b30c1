"""Kept Debian packages: laid out for apt, taken up from where apt put them, and fetched when they are not kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aos.agentfile.pins import DebianPackage
from aos.build.host.deb import listed_in, priority_of, read_control, write_archive
from aos.errors import Conflict, DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from aos.build.cache.kept import Kept

__all__ = ["PREFERENCES", "download_words", "keep_downloaded", "lay_out", "missing_packages", "take_up"]

_LABEL = "aos-kept"  # of the archive that `lay_out` makes
PREFERENCES = f"Package: *\nPin: release l={_LABEL}\nPin-Priority: 990\n"
"""What makes apt take from that archive before any other (apt_preferences(5))."""


def missing_packages(kept: Kept, packages: Sequence[DebianPackage]) -> list[DebianPackage]:
    absent = set(kept.missing(package.digest for package in packages))
    return [package for package in packages if package.digest in absent]


def lay_out(kept: Kept, directory: Path, packages: Sequence[DebianPackage], suite: str = "kept") -> None:
    """Make `directory` an archive of exactly these packages, which are kept; it must only be read."""
    for package in packages:
        kept.lend(package.digest, directory / package.file)
    write_archive(directory, packages, label=_LABEL, suite=suite)


def take_up(kept: Kept, directory: Path, lists: Path) -> tuple[str, ...]:
    """Keep all packages that apt downloaded into `directory`: their pins, sorted by name."""
    files = {
        file: DebianPackage.of_file(file.name, kept.keep(file)) for file in sorted(directory.glob("*.deb"))
    }
    listed = listed_in(lists, files.values())
    found = []
    for file, package in files.items():
        says = listed.get((package.name, package.version))
        if says is not None:
            differs = says.priority != priority_of(read_control(file))
            package = replace(package, archive=says.archive, priority=says.priority if differs else "")
        found.append(package.to_line())
    return tuple(found)


def download_words(packages: Iterable[DebianPackage]) -> list[str]:
    """For `apt-get download`."""
    return [
        f"{one.name}{'' if one.architecture == 'all' else ':' + one.architecture}={one.version}"
        for one in packages
    ]


def keep_downloaded(kept: Kept, directory: Path, packages: Iterable[DebianPackage], where: str) -> None:
    """Keep what `apt-get download` fetched for these pins.

    Raise Conflict (`lock-mismatch`: another file under the version)."""
    for package in packages:
        file = directory / package.file
        try:
            kept.keep(file, package.digest)
        except DataLoss as error:
            raise Conflict(
                f"{where}: the archives' {package.name} {package.version} is {error.subject['actual']}, and "
                f"{package.digest} in the lock",
                code="lock-mismatch",
                hint=f"find out who changed it; `aos lock --upgrade {package.name}` accepts it",
                package=package.name,
            ) from error
