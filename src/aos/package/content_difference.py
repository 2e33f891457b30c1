"""Where two contents begin to differ, shown as a short text diff or as bytes in hexadecimal. Pure, bounded memory."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ContentDifference", "content_difference"]

_PIECE = 1 << 16
_BEFORE = 2048
"""Bytes kept of what is the same in front of the difference."""
_AFTER = 4096
"""Bytes looked at from the difference on."""
_LINES = 12
"""Lines shown."""
_WIDTH = 120
"""Characters shown of a line."""


@dataclass(frozen=True, slots=True)
class ContentDifference:
    offset: int
    """Of the first byte that differs, or of the end of the shorter one."""
    line: int | None
    """Of the first difference, from 1; None for what is not text."""
    shown: tuple[str, ...]
    """Printable lines that begin with `-` (before), `+` (after) or a blank (both)."""


def content_difference(before: Iterable[bytes], after: Iterable[bytes]) -> ContentDifference | None:
    """Find the first difference of two streams; None when there is none."""
    one, two = _Reader(before), _Reader(after)
    offset = lines = 0
    tail = b""
    while True:
        left, right = one.read(_PIECE), two.read(_PIECE)
        if left == right:
            if not left:
                return None
            offset += len(left)
            lines += left.count(b"\n")
            tail = (tail + left)[-_BEFORE:]
            continue
        same = _common(left, right)
        offset, lines = offset + same, lines + left[:same].count(b"\n")
        tail = (tail + left[:same])[-_BEFORE:]
        ends = ((left[same:] + one.read(_AFTER))[:_AFTER], (right[same:] + two.read(_AFTER))[:_AFTER])
        texts = [_text(tail + end) for end in ends]
        if texts[0] is not None and texts[1] is not None:
            first = lines - tail.count(b"\n") + 1
            return ContentDifference(offset, lines + 1, tuple(_diff(texts[0], texts[1], first)))
        return ContentDifference(offset, None, tuple(_dump(offset, tail, *ends)))


class _Reader:
    """Pieces of one size out of pieces of any."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer at the end only."""
        parts, have = [self._buffer], len(self._buffer)
        while have < size and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._buffer = data[size:]
        return data[:size]


def _common(left: bytes, right: bytes) -> int:
    """How many bytes both begin with: by halves, so that the comparison is C's."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _text(data: bytes) -> str | None:
    """The lines, if it is text; cut characters at both ends are no reason to think otherwise."""
    text = data.decode("utf-8", "replace")
    inside = text.strip("\N{REPLACEMENT CHARACTER}")
    if "\N{REPLACEMENT CHARACTER}" in inside or len(text) - len(inside) > 6:
        return None
    if any(char < " " and char not in "\t\n\r\f\x1b\b" for char in inside):
        return None
    return inside


def _diff(before: str, after: str, first: int) -> Iterator[str]:
    """A unified diff without its heads; `first` is the number of the first line of both."""
    lines = list(difflib.unified_diff(before.splitlines()[:200], after.splitlines()[:200], n=1, lineterm=""))[
        3:
    ]
    for line in lines[:_LINES]:
        if line.startswith("@@"):
            break
        yield line[0] + "".join(
            char if char.isprintable() else _escape(char) for char in line[1 : _WIDTH + 1]
        )
    if not lines:
        yield " (only the ends of lines, or the end of the last one, differ)"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _dump(offset: int, tail: bytes, before: bytes, after: bytes) -> Iterator[str]:
    """Two rows of 16 bytes of each, from the row on in which the first difference is."""
    back = min(offset % 16, len(tail))
    start = offset - back
    head = tail[len(tail) - back :]
    for mark, data in (("-", head + before), ("+", head + after)):
        if not data[back:]:
            yield f"{mark}{offset:08x}  (ends here)"
            continue
        for row in range(0, 32, 16):
            if piece := data[row : row + 16]:
                text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
                yield f"{mark}{start + row:08x}  {piece.hex(' '):<47}  {text}"
