"""A region at the bottom of a terminal that is redrawn in place, with lines above it that stay.

Each frame is one write, and nothing is written when nothing has changed: no flicker. The cursor stays visible and
below the region, so that nothing has to be put right after `kill -9`.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

from aos.build.progress.printable import width

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["STYLES", "Line", "Screen"]

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "": ""}

Line = tuple[tuple[str, str], ...]
"""Pieces of printable text, each with its style; narrower than the terminal."""


class Screen:
    def __init__(self, stream: IO[str], *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._drawn: list[Line] = []
        self._columns = 0

    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal, as they are now; 80 by 24 where nobody knows."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError, AttributeError):
            return 80, 24
        return columns or 80, lines or 24

    def draw(self, above: Sequence[Line], region: Sequence[Line]) -> None:
        """Write lines that stay, and the region below them in place of what it was."""
        columns, _ = self.size()
        if not above and list(region) == self._drawn and columns == self._columns:
            return
        text = self._back(columns) if self._drawn else ""
        text += "".join(self._styled(line) + "\x1b[K\n" for line in (*above, *region))
        self._write(text + "\x1b[J")
        self._drawn, self._columns = list(region), columns

    def _back(self, columns: int) -> str:
        """To where the region begins. When the terminal has become narrower, it has wrapped the region's lines."""
        rows = sum(max(1, -(-sum(width(text) for text, _ in line) // columns)) for line in self._drawn)
        return f"\r\x1b[{rows}A"

    def _styled(self, line: Line) -> str:
        return "".join(
            f"\x1b[{STYLES[style]}m{text}\x1b[m" if style and self._colour else text for text, style in line
        )

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone: the build goes on
            pass
