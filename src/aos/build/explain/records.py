"""What builds did, one small file each: so that the next build's misses can be explained (`explain.py`).

    records/<id>.json       a build: its vertices, the components of their keys, hit or miss, what they cost
    records/files/<hex>     the files that a step took, by the digest of them all; records share it

A bounded number of builds is kept. Files are written whole and renamed; what cannot be read is not there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aos.build.plan.keys import Component
from aos.build.workspace.replace import replace_file
from aos.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from aos.build.context.select import Source

__all__ = ["BuildRecord", "Records", "Status", "VertexRecord"]

Status = Literal["base", "hit", "shared", "executed", "failed", "unreached"]
"""`shared`: another build executed it meanwhile. `unreached`: the build ended before."""

_FORMAT = 1
_KEPT = 48
_MOST = 64
"""Builds beyond it are removed down to _KEPT, so that few builds pay for it."""
_ID = re.compile(r"[0-9a-f]{12}")
_LARGEST = 64 << 20  # bytes of a record or of a list of files, unpacked; beyond it is damage
_SHORT = 16  # hex digits of a file's digest: enough to see that it is another


@dataclass(frozen=True, slots=True)
class VertexRecord:
    label: str
    stage: str
    position: int
    """Of the step in its stage."""
    created_by: str
    kind: str
    """Of the step; "base" where the vertex resolves one."""
    status: Status
    key: str
    """"" when the build ended before it was known."""
    components: tuple[Component, ...]
    result: str
    """The chain of the state that it left; "" when it left none."""
    seconds: float
    """What its execution cost, in this build or in the one that the result is from."""
    below: int | None
    reads: tuple[int | None, ...]
    forced: bool = False
    """The build was told to execute it whatever is cached."""


@dataclass(frozen=True, slots=True)
class BuildRecord:
    id: str
    at: float
    """When the build began: seconds since the epoch."""
    package: str
    """Name of the package, without its version: what later builds of it are compared by."""
    outcome: Literal["built", "failed", "stopped"]
    seconds: float
    digest: str
    """Of the package's manifest; "" when there is none."""
    vertices: tuple[VertexRecord, ...]


class Records:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, record: BuildRecord, selected: Mapping[tuple[str, int], Iterable[Source]]) -> None:
        """Keep a build, and which files its steps took, by stage and position."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for vertex in record.vertices:
            files = next((part for part in vertex.components if part.name == "files"), None)
            if files is None:
                continue
            manifest = self._manifest(files.digest)
            if not manifest.exists():
                manifest.parent.mkdir(mode=0o700, exist_ok=True)
                sources = selected.get((vertex.stage, vertex.position), ())
                replace_file(manifest, zlib.compress(_manifest_of(sources), 1))
        replace_file(self._directory / f"{record.id}.json", _encode(record))
        self._bound()

    def find(self, id: str) -> tuple[BuildRecord, list[BuildRecord]]:
        """A build by its id, the beginning of it, or `LAST`; and those before it, the newest last.

        Raise NotFound (`build-not-found`)."""
        records = self.all()
        wanted = id.lower()
        for at in range(len(records) - 1, -1, -1):
            if wanted == "last" or (len(wanted) >= 4 and records[at].id.startswith(wanted)):
                return records[at], records[:at]
        raise NotFound(
            f"no record of a build {id!r:.40}" if wanted != "last" else "nothing has been built here yet",
            code="build-not-found",
            hint=f"the last {_KEPT} builds are remembered; `aos explain` tells of the last one",
            build=id,
        )

    def all(self) -> list[BuildRecord]:
        """All that are kept and whole, the newest last."""
        found = [record for file in self._directory.glob("*.json") if (record := _decode(file)) is not None]
        return sorted(found, key=lambda record: (record.at, record.id))

    def files(self, digest: str) -> Mapping[str, str] | None:
        """What a copy took: path to a digest of kind, mode and content. None: not known any more."""
        try:
            packed = zlib.decompressobj()
            text = packed.decompress(self._manifest(digest).read_bytes(), _LARGEST).decode()
            pairs = [line.split(" ", 1) for line in text.splitlines()]
            return {path: what for what, path in pairs}
        except (OSError, ValueError, zlib.error):
            return None

    def sweep(self) -> None:
        """Remove lists of files that no record names."""
        named = {part.digest for record in self.all() for one in record.vertices for part in one.components}
        wanted = {self._manifest(digest).name for digest in named}
        for file in self._directory.glob("files/*"):
            if file.name not in wanted:
                file.unlink(missing_ok=True)

    def _bound(self) -> None:
        """Remove the oldest; names say nothing of age, so by their dates."""
        found = list(self._directory.glob("*.json"))
        if len(found) <= _MOST:
            return
        with contextlib.suppress(OSError):  # another build does it at the same time
            for file in sorted(found, key=lambda file: file.stat().st_mtime_ns)[:-_KEPT]:
                file.unlink()
        self.sweep()

    def _manifest(self, digest: str) -> Path:
        return self._directory / "files" / digest.removeprefix("sha256:")


def _manifest_of(sources: Iterable[Source]) -> bytes:
    lines = []
    for source in sources:
        for entry in source.entries:
            what = entry.content[:_SHORT] if entry.kind == "file" else entry.kind[0]
            if entry.kind == "link":
                what = f"l{zlib.crc32(os.fsencode(entry.content)):08x}"
            executable = "x" if entry.kind == "file" and entry.mode & 0o111 else ""
            path = os.fsencode(entry.path or ".").decode(errors="backslashreplace").replace("\n", "\\n")
            lines.append(f"{what}{executable} {path}\n")
    return "".join(lines).encode()


def _encode(record: BuildRecord) -> bytes:
    raw: dict[str, Any] = {name: getattr(record, name) for name in record.__slots__}
    raw["format"] = _FORMAT
    raw["vertices"] = [
        {name: getattr(one, name) for name in one.__slots__}
        | {"components": [[part.name, part.digest, dict(part.parts)] for part in one.components]}
        for one in record.vertices
    ]
    return json.dumps(raw, separators=(",", ":")).encode()


def _decode(file: Path) -> BuildRecord | None:
    """None for what is damaged, of another format, or no record at all."""
    try:
        if not _ID.fullmatch(file.stem) or file.stat().st_size > _LARGEST:
            return None
        raw: Any = json.loads(file.read_bytes())
        if raw.pop("format") != _FORMAT or raw["id"] != file.stem:
            return None
        vertices = tuple(
            VertexRecord(
                **{
                    **one,
                    "components": tuple(
                        Component(name, digest, tuple(parts.items()))
                        for name, digest, parts in one["components"]
                    ),
                    "reads": tuple(one["reads"]),
                }
            )
            for one in raw["vertices"]
        )
        return BuildRecord(**{**raw, "vertices": vertices, "at": float(raw["at"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
