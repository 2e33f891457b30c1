"""Lines that a step wrote, made safe to show: a terminal prints them and does nothing else."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["cut", "printable", "width"]

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor movements
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"  # titles, links, clipboards
    r"|\x1b[ -/]*[0-~]"
)
"""ECMA-48, 5.4 and 5.6; xterm's "Control Sequences"."""


def printable(line: str) -> str:
    """The line as it would stand there: what follows the last carriage return, tabs as blanks, no escape sequences,
    and every other control or invisible formatting character as U+FFFD."""
    line = line.rstrip("\r\n").rsplit("\r", 1)[-1]
    if line.isascii() and line.isprintable():
        return line
    line = _SEQUENCE.sub("", line).expandtabs(8)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def width(text: str) -> int:
    """Columns of a terminal that printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def cut(text: str, columns: int) -> str:
    """The text in at most so many columns, with `…` where it had to be cut."""
    if width(text) <= columns:
        return text
    taken, room = [], columns - 1
    for char in text:
        room -= _columns(char)
        if room < 0:
            break
        taken.append(char)
    return "".join(taken) + "…" if columns > 0 else ""


def _columns(char: str) -> int:
    """Source: Unicode Standard Annex 11; combining marks take none."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
