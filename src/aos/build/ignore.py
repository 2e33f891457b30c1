"""Which files of a context a build does not see: the rules of `.dockerignore`.

Source of the semantics: the Dockerfile reference, ".dockerignore file", and Go's `filepath.Match`. A pattern is
anchored at the context's root; `*` and `?` stop at `/`, `**` does not; a pattern that matches a directory
matches everything below it; `!` brings back; the last rule that matches decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aos.errors import InvalidArgument

__all__ = ["IGNORE_FILES", "IgnoreRules", "glob_to_regex", "parse_ignore"]

IGNORE_FILES = (".aosignore", ".dockerignore")
"""The first that exists is the only one read."""


@dataclass(frozen=True, slots=True)
class _Rule:
    regex: re.Pattern[str]
    keeps: bool
    """It began with `!`."""


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    rules: tuple[_Rule, ...] = ()

    @property
    def can_keep_below(self) -> bool:
        """Whether something below an ignored directory may be kept, so that it must be walked."""
        return any(rule.keeps for rule in self.rules)

    def ignores(self, path: str) -> bool:
        """Whether `path` (relative, '/' between components) is left out."""
        if not self.rules:
            return False
        parts = path.split("/")
        prefixes = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        ignored = False
        for rule in self.rules:
            if ignored == rule.keeps and any(rule.regex.fullmatch(prefix) for prefix in prefixes):
                ignored = not rule.keeps
        return ignored


def parse_ignore(text: str, file: str = ".dockerignore") -> IgnoreRules:
    """Raise InvalidArgument (`ignore-invalid`) naming `file` and the line of a malformed pattern."""
    rules: list[_Rule] = []
    for number, line in enumerate(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").splitlines(), 1):
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        keeps = pattern.startswith("!")
        if keeps:
            pattern = pattern[1:].strip()
        parts: list[str] = []
        for part in pattern.split("/"):
            if part == ".." and parts:
                parts.pop()
            elif part not in ("", ".", ".."):
                parts.append(part)
        if keeps and not pattern:
            raise InvalidArgument(
                f"{file}:{number}: '!' must be followed by a pattern",
                code="ignore-invalid",
                file=file,
                line=number,
            )
        if not parts:  # "/" or "." name the context itself, which cannot be left out
            continue
        try:
            regex = glob_to_regex("/".join(parts))
        except ValueError as error:
            raise InvalidArgument(
                f"{file}:{number}: {line.strip()!r}: {error}",
                code="ignore-invalid",
                hint="write '\\' before a character that is meant literally",
                file=file,
                line=number,
            ) from None
        rules.append(_Rule(regex, keeps))
    return IgnoreRules(tuple(rules))


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of Go's `filepath.Match`, plus `**`. Raise ValueError for a malformed one."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            while pattern.startswith("*", at):
                at += 1
            if at == len(pattern):
                out.append(".*")
            elif pattern[at] == "/":
                out.append("(?:.*/)?")
                at += 1
            else:
                out.append(".*")
            continue
        at += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            text, at = _character_class(pattern, at)
            out.append(text)
        elif char == "\\":
            if at == len(pattern):
                raise ValueError("nothing follows the last '\\'")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def _character_class(pattern: str, at: int) -> tuple[str, int]:
    """Translate the class whose '[' stands before `at`; the text and the position after its ']'."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while True:
        if at >= len(pattern):
            raise ValueError("'[' without ']'")
        if pattern[at] == "]" and ranges:
            break
        low, at = _class_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1)
        if high < low:
            raise ValueError(f"the range {low}-{high} is empty")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("\\", at):
        at += 1
    elif pattern.startswith(("-", "]"), at):
        raise ValueError(f"{pattern[at]!r} must follow '\\' inside '[…]'")
    if at >= len(pattern):
        raise ValueError("'[' without ']'")
    return pattern[at], at + 1
