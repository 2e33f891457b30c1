"""Patterns of paths as Docker has them: Go's `filepath.Match`, and `**` for any number of directories.

Source: Go, package path/filepath, "Match"; the Dockerfile reference, ".dockerignore files"; what `**` means inside
of a component, and that a class may stand for '/', is as moby/patternmatcher has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Glob", "PatternError", "glob_to_regex", "is_literal", "parse_glob"]

_SPECIAL = re.compile(r"[*?\[\\]")


class PatternError(ValueError):
    """A malformed pattern; `at`: where in it, counted from 0."""

    def __init__(self, problem: str, at: int) -> None:
        super().__init__(problem)
        self.at = at


@dataclass(frozen=True, slots=True)
class Glob:
    text: str
    regex: re.Pattern[str]
    """For `fullmatch`."""
    parts: tuple[str, ...] | None
    """One pattern for each component of the path, `**` for any number of them; None: it is not made that way."""


def is_literal(pattern: str) -> bool:
    return not _SPECIAL.search(pattern)


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """For `fullmatch`. Raise PatternError."""
    return parse_glob(pattern).regex


def parse_glob(pattern: str) -> Glob:
    """Raise PatternError."""
    out: list[str] = []
    crosses = False
    """Something other than a component `**` matches a '/'."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            before = at == 0 or pattern[at - 1] == "/"
            at += 2
            slash = pattern.startswith("/", at)
            end = at + slash == len(pattern)
            crosses |= not (before and (slash or end))
            if end or (not slash and at == 2 and is_literal(pattern[at:])):
                out.append(".*")
            else:
                out.append("(?:.*/)?")
            at += slash
            continue
        at += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            text, at = _character_class(pattern, at)
            crosses |= re.fullmatch(text, "/") is not None or "/" in text
            out.append(text)
        elif char == "\\":
            if at == len(pattern):
                raise PatternError("nothing follows the last '\\'", at - 1)
            crosses |= pattern[at] == "/"
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    parts = None if crosses else tuple(pattern.split("/"))
    return Glob(pattern, re.compile("".join(out), re.DOTALL), parts)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    """Translate the class whose '[' stands before `at`; the text and the position after its ']'."""
    start = at - 1
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while True:
        if at >= len(pattern):
            raise PatternError("'[' without ']'", start)
        if pattern[at] == "]" and ranges:
            break
        first = at
        low, at = _class_character(pattern, at, start)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1, start)
        if high < low:
            raise PatternError(f"the range {low}-{high} is empty", first)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _class_character(pattern: str, at: int, start: int) -> tuple[str, int]:
    if pattern.startswith("\\", at):
        at += 1
    elif pattern.startswith(("-", "]"), at):
        raise PatternError(f"{pattern[at]!r} must follow '\\' inside '[…]'", at)
    if at >= len(pattern):
        raise PatternError("'[' without ']'", start)
    return pattern[at], at + 1
