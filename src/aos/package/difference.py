"""The first screen of what differs between two results that should be the same: which file, and why.

What `aos build --check-reproducible` shows. Unlike `compare`, which says what is different for an agent, everything
counts here that shapes a digest: times, the order of entries, headers, compression.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.content.archive import open_archive, path_parts
from aos.content.compression import decompressed
from aos.package.compare import aspects_of, config_changes
from aos.package.content_difference import content_difference
from aos.package.facts import layer_facts
from aos.package.sources import LayerSource, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aos.package.documents import BlobReader
    from aos.package.facts import Package
    from aos.package.files import File

__all__ = ["Difference", "first_differences", "package_differences"]


@dataclass(frozen=True, slots=True)
class Difference:
    where: str
    """A path with its `/`, a field of the configuration, or what of a layer is meant."""
    why: str
    """`content`, `mode`, `owner`, `link`, `device`, `xattrs`, `time`, `type`, `only before`, `only after`, `order`,
    `header`, `compression`, `config`, `layers`."""
    before: str
    after: str
    shown: tuple[str, ...] = ()
    """Of content: the lines or bytes that differ, each with `-`, `+` or a blank in front."""
    step: str = ""
    """The step that made the layer."""

    def lines(self) -> list[str]:
        """For people."""
        said = f": {self.before} -> {self.after}" if self.before or self.after else ""
        made = f"   [{self.step:.80}]" if self.step else ""
        return [f"{self.where}: {self.why}{said}{made}", *(f"    {line}" for line in self.shown)]


def package_differences(
    before: tuple[Package, BlobReader], after: tuple[Package, BlobReader], *, limit: int = 10
) -> list[Difference]:
    """The first differences of two packages, each with the store that has it: configuration, then layer by layer."""
    one, two = before[0], after[0]
    found = [
        Difference(change.field, "config", str(change.before), str(change.after))
        for change in config_changes(one, two)
    ]
    for old, new, facts in zip(one.layers, two.layers, layer_facts(one), strict=False):
        if len(found) < limit and old.digest != new.digest:
            found += first_differences(
                LayerSource(before[1], old),
                LayerSource(after[1], new),
                limit=limit - len(found),
                step=facts.created_by,
            )
    if len(one.layers) != len(two.layers):
        found.append(Difference("layers", "layers", str(len(one.layers)), str(len(two.layers))))
    return found[:limit]


def first_differences(before: Source, after: Source, *, limit: int = 10, step: str = "") -> list[Difference]:
    """The first differences of two layers or trees, at most `limit`; none when they are the same.

    Files are read once, and again where their content has to be shown.
    """
    old, new = before.files(), after.files()
    one, two = {file.path: file for file in old}, {file.path: file for file in new}
    found: list[Difference] = []
    for path in sorted(one.keys() | two.keys(), key=lambda path: path.split("/")):
        if len(found) >= limit:
            return found[:limit]
        found += _of_file(one.get(path), two.get(path), before, after, step)
    if not found:
        found += _of_order([file.path for file in old], [file.path for file in new], step)
    if not found and isinstance(before, LayerSource) and isinstance(after, LayerSource):
        found += _of_bytes(before, after, step)
    return found[:limit]


def _of_file(
    old: File | None, new: File | None, before: Source, after: Source, step: str
) -> Iterator[Difference]:
    if old is None or new is None:
        file = old or new
        assert file is not None
        yield Difference(_shown(file.path), "only before" if old else "only after", "", "", step=step)
        return
    for aspect in aspects_of(old, new, times=True):
        shown: tuple[str, ...] = ()
        one, two = _value(aspect, old), _value(aspect, new)
        if aspect == "content" and not old.link and not new.link:
            with closing(before.content(old.path)) as left, closing(after.content(new.path)) as right:
                different = content_difference(left, right)
            if different is not None:
                place = f"line {different.line}" if different.line else f"byte {different.offset}"
                one, two, shown = f"{old.size} bytes", f"{new.size} bytes, from {place} on", different.shown
        yield Difference(_shown(old.path), aspect, one, two, shown, step)


def _of_order(old: Sequence[str], new: Sequence[str], step: str) -> Iterator[Difference]:
    for number, (one, two) in enumerate(zip(old, new, strict=False)):
        if one != two:
            yield Difference(f"entry {number + 1} of the layer", "order", _shown(one), _shown(two), step=step)
            return
    if len(old) != len(new):
        yield Difference("entries of the layer", "order", str(len(old)), str(len(new)), step=step)


def _of_bytes(before: LayerSource, after: LayerSource, step: str) -> Iterator[Difference]:
    """All that the entries say is the same: what is left are their headers, padding, and the compression."""
    with closing(before.tar()) as left, closing(after.tar()) as right:
        different = content_difference(left, right)
    if different is None:
        if before.layer.digest != after.layer.digest:
            one, two = (f"{side.layer.media_type} {side.layer.size} bytes" for side in (before, after))
            yield Difference("the layer's blob", "compression", one, two, step=step)
        return
    where = _entry_at(before, different.offset)
    old, new = (_header_at(side, different.offset) for side in (before, after))
    fields = [name for name in _HEADER if old and new and name != "checksum" and old[name] != new[name]]
    for name in fields:
        one, two = (ascii(side[name].rstrip(b"\0"))[1:] for side in (old, new))
        yield Difference(where, "header", f"{name} {one}", two, step=step)
    if not fields:
        yield Difference(where, "header", "", f"byte {different.offset} of the tar", different.shown, step)


def _header_at(source: LayerSource, offset: int) -> dict[str, bytes]:
    """The fields of the header at an offset of the tar; empty when there is none."""
    block, at = offset // 512 * 512, 0
    data = bytearray()
    with closing(source.tar()) as pieces:
        for piece in pieces:
            data += piece[max(0, block - at) : max(0, block + 512 - at)]
            at += len(piece)
            if len(data) >= 512:
                break
    if data[257:262] != b"ustar":
        return {}
    return {name: bytes(data[start:end]) for name, (start, end) in _HEADER.items()}


_HEADER = {
    "name": (0, 100),
    "mode": (100, 108),
    "uid": (108, 116),
    "gid": (116, 124),
    "size": (124, 136),
    "mtime": (136, 148),
    "checksum": (148, 156),
    "type": (156, 157),
    "link": (157, 257),
    "magic": (257, 265),
    "user": (265, 297),
    "group": (297, 329),
    "device": (329, 345),
    "prefix": (345, 500),
    "padding": (500, 512),
}
"""POSIX pax(1), "ustar Interchange Format"."""


def _entry_at(source: LayerSource, offset: int) -> str:
    """The entry whose header or padding lies at an offset of the tar."""
    where = "the layer's tar"
    with (
        source.blobs.open(source.layer.digest) as stored,
        open_archive(decompressed(stored, source.layer.media_type)) as archive,
    ):
        for entry in archive:
            if entry.offset <= offset:
                where = _shown("/".join(path_parts(entry.name)))
    return where


def _value(aspect: str, file: File) -> str:
    match aspect:
        case "content":
            return f"sha256:{file.content.hex()[:12]}"
        case "mode":
            return f"{file.mode:04o}"
        case "owner":
            return f"{file.uid}:{file.gid}"
        case "time":
            return f"{file.mtime_ns // 10**9}.{file.mtime_ns % 10**9:09d}".rstrip("0").rstrip(".")
        case "link":
            return file.link or "none"
        case "device":
            return " ".join(map(str, file.device or ()))
        case "xattrs":
            return ascii(dict(file.xattrs))
        case _:
            return file.kind


def _shown(path: str) -> str:
    """A path that does nothing to a terminal."""
    return "/" + "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in path
    )
