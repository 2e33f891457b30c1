"""What package managers have installed in a package, as their own records in its files say.

    Python    *.dist-info/METADATA and RECORD (core metadata; packaging.python.org, "Recording installed projects")
    Debian    var/lib/dpkg/status, and status.d/* where there is no dpkg (deb-control(5), dpkg-query(1))

The records are hostile, too: what does not parse says nothing, and only their beginning is read when they are large.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aos.package.files import File

__all__ = ["Note", "NoteTaker", "Software", "installed", "note_taker"]

_RECORD_LIMIT = 32 << 20
"""Bytes read of one record; the status of a desktop with 3,000 Debian packages has 4 MB."""
_TEXT_LIMIT = 300
"""Characters of a name or a version that are believed."""


@dataclass(frozen=True, slots=True, order=True)
class Software:
    """One installed distribution or package."""

    manager: Literal["debian", "python"]
    name: str
    version: str
    size: int = 0
    """Bytes that its files take, as its own records say; 0 when they do not."""


@dataclass(frozen=True, slots=True)
class Note:
    """What one file of a package manager says."""

    software: tuple[Software, ...] = ()
    bytes: int = 0
    """Of a RECORD: the sizes it lists."""


class NoteTaker:
    """Gathers the beginning of a file and parses it at its end."""

    def __init__(self, parse: Callable[[str], Note | None]) -> None:
        self._parse = parse
        self._data = bytearray()

    def feed(self, piece: bytes) -> None:
        self._data += piece[: _RECORD_LIMIT - len(self._data)]

    def note(self) -> Note | None:
        return self._parse(self._data.decode("utf-8", "replace"))


def note_taker(path: str) -> NoteTaker | None:
    """Who reads the file at `path` along; None: no package manager keeps anything there."""
    directory, _, name = path.rpartition("/")
    if directory.endswith(".dist-info"):
        parse = {"METADATA": _metadata, "RECORD": _record}.get(name)
        return NoteTaker(parse) if parse else None
    if path == "var/lib/dpkg/status" or (
        directory == "var/lib/dpkg/status.d" and not name.endswith(".md5sums")
    ):
        return NoteTaker(_status)
    return None


def installed(files: Iterable[File]) -> list[Software]:
    """Everything that the package managers' records among `files` name, sorted."""
    found: set[Software] = set()
    distributions: dict[str, Software] = {}
    records: dict[str, int] = {}
    for file in files:
        if file.note is None:
            continue
        directory = file.path.rpartition("/")[0]
        records[directory] = records.get(directory, 0) + file.note.bytes
        for one in file.note.software:
            if one.manager == "python":
                distributions[directory] = one
            else:
                found.add(one)
    found.update(
        Software("python", one.name, one.version, records[directory])
        for directory, one in distributions.items()
    )
    return sorted(found)


def _metadata(text: str) -> Note | None:
    fields = next(_paragraphs(text), {})
    name, version = fields.get("name", ""), fields.get("version", "")
    return Note((Software("python", name.lower().replace("_", "-"), version),)) if name else None


def _record(text: str) -> Note | None:
    try:
        sizes = [row[2] for row in csv.reader(text.splitlines()) if len(row) == 3]
    except csv.Error:
        return None
    return Note(
        bytes=sum(int(size) for size in sizes if size.isascii() and size.isdigit() and len(size) < 16)
    )


def _status(text: str) -> Note | None:
    software = []
    for fields in _paragraphs(text):
        name, state = fields.get("package", ""), fields.get("status", "installed")
        if name and state.endswith("installed") and not state.endswith("not-installed"):
            kibibytes = fields.get("installed-size", "")
            size = int(kibibytes) * 1024 if kibibytes.isascii() and kibibytes.isdigit() else 0
            software.append(Software("debian", name, fields.get("version", ""), size))
    return Note(tuple(software))


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The fields of each paragraph by lower-case name, first lines only."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            name, colon, value = line.partition(":")
            if colon and len(value) <= _TEXT_LIMIT:
                fields.setdefault(name.lower(), value.strip())
    if fields:
        yield fields
