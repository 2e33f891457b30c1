"""A layer's tar as a stream that only goes forward: what unpacking, listing and comparing it share.

Archives are hostile: names that climb out are refused, and no header makes the reader hold more than a piece.
Sources: OCI image specification 1.1, "layer.md"; pax(1) for extended headers.
"""

from __future__ import annotations

import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aos.content.compression import PIECE
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "OPAQUE",
    "WHITEOUT",
    "XATTR",
    "Archive",
    "mtime_ns",
    "open_archive",
    "path_parts",
    "refused",
]

OPAQUE = ".wh..wh..opq"
WHITEOUT = ".wh."
XATTR = "SCHILY.xattr."


@contextmanager
def open_archive(pieces: Iterator[bytes]) -> Iterator[Archive]:
    """Read the tar that `pieces` make; whatever is wrong with it becomes InvalidArgument (`layer-invalid`).

    A block that has seen the last entry has consumed all pieces, and found nothing but padding behind it.
    """
    stream = _Forward(pieces)
    try:
        with tarfile.TarFile(fileobj=stream, mode="r", errors="surrogateescape") as tar:  # type: ignore[arg-type]
            archive = Archive(tar, stream)
            yield archive
        if archive.ended:
            stream.expect_zeros()
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"a layer that is not a sound tar: {error}", code="layer-invalid") from error


class Archive:
    """The entries of a tar, each to be read, or not, before the next one is asked for."""

    def __init__(self, tar: tarfile.TarFile, stream: _Forward) -> None:
        self._tar = tar
        self._stream = stream
        self.ended = False

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (entry := self._tar.next()) is not None:
            yield entry
            self._tar.members.clear()  # type: ignore[attr-defined]
        self.ended = True

    def content(self, entry: tarfile.TarInfo) -> Iterator[bytes]:
        """What the current entry, a regular file, holds, in pieces of at most PIECE bytes."""
        if entry.sparse is not None:
            source = self._tar.extractfile(entry)
            assert source is not None
            while piece := source.read(PIECE):
                yield piece
            return
        self._stream.seek(entry.offset_data)
        left = entry.size
        while left:
            data = self._stream.read(min(left, PIECE))
            if not data:
                raise refused(entry.name, "the archive ends inside this file")
            left -= len(data)
            yield data


class _Forward:
    """A file over pieces that can only go forward, which is all that tarfile asks of it here."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = memoryview(b"")
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        while self._position < position:
            if not self.read(min(position - self._position, PIECE)):
                break
        if self._position != position:
            raise tarfile.ReadError("the archive ends too early")
        return position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PIECE:
            raise tarfile.ReadError(f"a header of {size} bytes; at most {PIECE} are read")
        if len(self._buffer) >= size:
            data = bytes(self._buffer[:size])
            self._buffer = self._buffer[size:]
        else:
            parts, missing = [self._buffer], size - len(self._buffer)
            while missing > 0 and (piece := next(self._pieces, b"")):
                parts.append(memoryview(piece)[:missing])
                self._buffer = memoryview(piece)[missing:]
                missing -= len(piece)
            if missing > 0:
                self._buffer = memoryview(b"")
            data = b"".join(parts)
        self._position += len(data)
        return data

    def expect_zeros(self) -> None:
        """Behind the last entry there may be padding and nothing else."""
        while data := self.read(PIECE):
            if data.count(0) != len(data):
                raise InvalidArgument("a layer with bytes behind its last entry", code="layer-invalid")


def path_parts(name: str) -> tuple[str, ...]:
    """The components of an entry's name; InvalidArgument (`layer-invalid`) when it climbs out."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise refused(name, "its path climbs out of the layer")
    return parts


def mtime_ns(entry: tarfile.TarInfo) -> int:
    text = entry.pax_headers.get("mtime", "")
    whole, _, fraction = text.partition(".")
    if whole.lstrip("-").isdecimal() and (not fraction or fraction.isdecimal()):
        sign = -1 if whole.startswith("-") else 1
        return int(whole) * 10**9 + sign * int(fraction[:9].ljust(9, "0"))
    return int(entry.mtime) * 10**9


def refused(name: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"layer entry {name!r:.300}: {why}",
        code="layer-invalid",
        hint="the layer was not unpacked; build or fetch the package from a source you trust",
        entry=name[:300].encode("utf-8", "backslashreplace").decode(),
    )
