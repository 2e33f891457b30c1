"""Debian packages as files: what their control file says, and a directory of them as an archive for apt.

Sources: deb(5) (an `ar` archive of `debian-binary`, `control.tar.*`, `data.tar.*`), deb-control(5), and the Debian
wiki's "RepositoryFormat" (a flat archive: `Packages` and `Release` beside the files).
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import IO

    from aos.agentfile.pins import DebianPackage

__all__ = ["Listed", "listed_in", "priority_of", "read_control", "write_archive"]

_DATE = "Thu, 01 Jan 1970 00:00:00 UTC"
_MAGIC = b"!<arch>\n"
_HEADER = 60
_LARGEST_CONTROL = 64 << 20
_PRIORITY = re.compile(r"(?m)^Priority: *(\S*).*\n")
_LIST = re.compile(r"_dists_(?P<suite>.+)_(?P<component>[^_]+)_binary-[^_]+_Packages")


def read_control(file: Path) -> str:
    """The control file of a package, ending in a line feed. Raise DataLoss (`package-damaged`)."""
    try:
        with file.open("rb") as stream:
            name, data = _control_member(stream)
        if name.endswith(".zst"):
            import zstandard

            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=_LARGEST_CONTROL)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.name.removeprefix("./") == "control" and (control := archive.extractfile(member)):
                    return control.read().decode().strip("\n") + "\n"
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        raise DataLoss(
            f"{file.name} is not a Debian package: {error}", code="package-damaged", file=file.name
        ) from error
    raise DataLoss(f"{file.name} has no control file", code="package-damaged", file=file.name)


def write_archive(directory: Path, packages: Iterable[DebianPackage], *, label: str, suite: str) -> None:
    """Make `directory`, which holds the files of these packages, a flat archive that apt reads."""
    stanzas = []
    for package in sorted(packages, key=lambda one: one.file):
        file = directory / package.file
        control = read_control(file)
        if package.priority:
            control = _PRIORITY.sub("", control) + f"Priority: {package.priority}\n"
        stanzas.append(
            f"{control}Filename: ./{package.file}\nSize: {file.stat().st_size}\n"
            f"SHA256: {package.digest.removeprefix('sha256:')}\n"
        )
    index = "\n".join(stanzas).encode()
    (directory / "Packages").write_bytes(index)
    digest = hashlib.sha256(index).hexdigest()
    (directory / "Release").write_text(
        f"Label: {label}\nSuite: {suite}\nDate: {_DATE}\nSHA256:\n {digest} {len(index)} Packages\n"
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """What an archive says of a package."""

    archive: str
    """`SUITE/COMPONENT`."""
    priority: str = ""


def listed_in(lists: Path, packages: Iterable[DebianPackage]) -> dict[tuple[str, str], Listed]:
    """By name and version: what apt's package lists say of these packages."""
    wanted = {(package.name, package.version) for package in packages}
    found: dict[tuple[str, str], Listed] = {}
    for file in sorted(lists.glob("*_Packages")):
        match = _LIST.search(file.name)
        if match is None:
            continue
        archive = f"{match['suite'].replace('_', '/')}/{match['component']}"
        here: tuple[str, str] | None = None
        with file.open(errors="replace") as lines:
            for line in lines:
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "Package":
                    name, here = value, None
                elif field == "Version" and (name, value) in wanted - found.keys():
                    here = (name, value)
                    found[here] = Listed(archive)
                elif field == "Priority" and here:
                    found[here] = Listed(archive, value)
    return found


def priority_of(control: str) -> str:
    match = _PRIORITY.search(control)
    return match[1] if match else ""


def _control_member(stream: IO[bytes]) -> tuple[str, bytes]:
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin as one")
    while len(header := stream.read(_HEADER)) == _HEADER:
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        if name.startswith("control.tar"):
            if size > _LARGEST_CONTROL:
                raise ValueError("its control part is too large")
            return name, stream.read(size)
        stream.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("it has no control part")
