"""What verbs print: tables, JSON, colours, and values in words. Builtins and C modules only."""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

__all__ = ["ago", "clean", "colour", "duration", "print_json", "size", "table", "wants_json", "width"]

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_UNITS = (
    ("year", 31_536_000),
    ("month", 2_592_000),
    ("week", 604_800),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
)


def wants_json(args: Any) -> bool:
    return bool(args.get("output") == "json")


def print_json(value: object) -> None:
    import json  # 7 ms, paid by those who ask for JSON

    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns, docker's way: upper-case heads, three blanks between, nothing after the last."""
    cells = [list(columns), *([clean(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    widths[-1] = 0
    for row in cells:
        print("   ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]).rstrip())


def clean(text: str) -> str:
    """Make control characters visible: names and commands are the agents', the terminal is ours. A byte that is not
    UTF-8 (surrogateescape) becomes `\\xNN`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def colour(text: str, name: str, descriptor: int = 1) -> str:
    """Colour `text` when the descriptor is a terminal and NO_COLOR is not set (https://no-color.org)."""
    environ = posix.environ
    if not posix.isatty(descriptor) or environ.get(b"NO_COLOR") or environ.get(b"TERM") == b"dumb":
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def width() -> int:
    """Columns to wrap at: the terminal's, 80 at most of all when it is none."""
    try:
        columns = posix.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return columns or 80


def duration(seconds: float) -> str:
    """Say a duration in its largest unit: `3 minutes`."""
    for unit, length in _UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count > 1)}"
    count = max(0, int(seconds))
    return "less than a second" if count == 0 else f"{count} second{'s' * (count > 1)}"


def ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"


def size(count: float | None) -> str:
    """Say bytes with three figures and binary units, as `--memory` takes them: `1.5 MiB`."""
    if count is None:
        return "-"
    if count < 1024:
        return f"{int(count)} B"
    exponent = 0
    while count >= 1000 and exponent < 4:
        count, exponent = count / 1024, exponent + 1
    return f"{count:{'.3g' if count < 1000 else '.0f'}} {'KMGT'[exponent - 1]}iB"
