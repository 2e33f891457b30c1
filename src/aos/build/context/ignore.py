"""Which files of a context a build does not see: the rules of `.dockerignore`.

A pattern is anchored at the context's root; one that matches a directory matches everything below it; `!` brings
back; the last rule that matches decides. So whether a path is left out follows from its directory and its name: a
`Level` is what the rules say of the children of a directory, and directories that stand alike to the rules share
one, which makes most answers a look into a set.

Source: the Dockerfile reference, ".dockerignore files"; moby/patternmatcher, `MatchesOrParentMatches` and
`ignorefile.ReadAll`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from aos.build.context.glob import PatternError, glob_to_regex, is_literal, parse_glob
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.build.context.glob import Glob

__all__ = ["IGNORE_FILES", "IgnoreRules", "Level", "parse_ignore"]

IGNORE_FILES = (".aosignore", ".dockerignore")
"""The first that exists is the only one read."""

_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""What surrounds a pattern without being part of it: Unicode's White_Space (str.strip takes more than that)."""


_Place = tuple[int, int]
_Matches = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class _Rule:
    glob: Glob
    keeps: bool
    """It began with `!`."""


class IgnoreRules:
    """Rules in their order. Remembers the levels it was asked for, so it belongs to one thread."""

    def __init__(self, rules: Sequence[_Rule] = ()) -> None:
        self.rules = tuple(rules)
        root = Level(self.rules, [(index, 0) for index in range(len(self.rules))], 0)
        self._levels = {"": root}

    def __bool__(self) -> bool:
        return bool(self.rules)

    def ignores(self, path: str) -> bool:
        """Whether `path` (relative, '/' between components) is left out; the root itself cannot be."""
        if not path:
            return False
        parent, _, name = path.rpartition("/")
        return self.level(parent).ignores(path, name)

    def level(self, directory: str) -> Level:
        """The level of the children of `directory`."""
        level = self._levels.get(directory)
        if level is None:
            parent, _, name = directory.rpartition("/")
            level = self._levels[directory] = self.level(parent).below(directory, name)
        return level


class Level:
    """What the rules say of the children of one directory.

    `places`: which rules may still match below, as (rule, component of its pattern that comes next).
    `matched`: the rules, as bits, that match the directory or one above it, and so everything below.
    """

    def __init__(self, rules: tuple[_Rule, ...], places: Iterable[_Place], matched: int) -> None:
        self._rules = rules
        self._ends: list[tuple[int, _Matches]] = []
        """Rules, as bits, that match a child by its name."""
        self._whole: list[tuple[int, _Matches]] = []
        """Rules that look at a child's whole path."""
        self._moves: list[tuple[_Place, _Matches]] = []
        """Rules that go on below a child by its name."""
        self._stays: set[_Place] = set()
        """Rules that go on below every child."""
        self._next: dict[tuple[frozenset[_Place], int], Level] = {}
        names: list[str] = []
        pending = sorted(place for place in places if not matched & 1 << place[0])
        while pending:
            index, place = pending.pop()
            glob = rules[index].glob
            if glob.parts is None:
                self._whole.append((1 << index, glob.regex.fullmatch))
                self._stays.add((index, place))
            elif glob.parts[place] == "**":
                if place == len(glob.parts) - 1:
                    matched |= 1 << index
                elif (index, place) not in self._stays:
                    self._stays.add((index, place))
                    pending.append((index, place + 1))
            elif place == len(glob.parts) - 1:
                names.append(glob.parts[place])
                self._ends.append((1 << index, _regex(glob.parts[place])))
            else:
                self._moves.append(((index, place + 1), _regex(glob.parts[place])))
        self._matched = matched
        self._otherwise = self._decide(matched)
        """What holds for a child that no further rule matches."""
        self._any_end = _any_of(names)
        live = {index for index, _ in self._stays} | {index for (index, _), _ in self._moves}
        live |= {bit.bit_length() - 1 for bit, _ in self._ends}
        self.keeps_below = not self._otherwise or any(rules[index].keeps for index in live)
        """Whether something below may be kept even when the directory is not, so that it must be walked."""

    def ignores(self, path: str, name: str) -> bool:
        """Whether the child at `path`, whose last component is `name`, is left out."""
        if self._whole or self._any_end(name):
            return self._decide(self._bits(path, name))
        return self._otherwise

    def below(self, path: str, name: str) -> Level:
        """The level of the children of the child at `path`."""
        places = frozenset(place for place, matches in self._moves if matches(name)) | self._stays
        key = places, self._bits(path, name)
        if (level := self._next.get(key)) is None:
            level = self._next[key] = Level(self._rules, *key)
        return level

    def _bits(self, path: str, name: str) -> int:
        bits = self._matched
        for bit, matches in self._ends:
            if matches(name):
                bits |= bit
        for bit, matches in self._whole:
            if matches(path):
                bits |= bit
        return bits

    def _decide(self, bits: int) -> bool:
        """The last rule that matches decides."""
        return bool(bits) and not self._rules[bits.bit_length() - 1].keeps


@cache
def _regex(part: str) -> _Matches:
    return glob_to_regex(part).fullmatch


def _any_of(parts: Iterable[str]) -> Callable[[str], object]:
    """A quick test whether a name matches one of `parts`."""
    literals: set[str] = set()
    endings: list[str] = []
    others: list[str] = []
    for part in parts:
        if is_literal(part):
            literals.add(part)
        elif part.startswith("*") and is_literal(part[1:]):
            endings.append(part[1:])
        else:
            others.append(glob_to_regex(part).pattern)
    last = tuple(endings)
    if not others:
        return lambda name: name in literals or name.endswith(last)
    matches = re.compile("|".join(others), re.DOTALL).fullmatch
    return lambda name: name in literals or name.endswith(last) or matches(name)


def parse_ignore(data: bytes, file: str = ".dockerignore") -> IgnoreRules:
    """Raise InvalidArgument (`ignore-invalid`) naming `file`, line and column of a malformed pattern."""
    rules: list[_Rule] = []
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#"):
            continue
        pattern = line.strip(_BLANKS)
        keeps = pattern.startswith("!")
        if keeps:
            pattern = pattern[1:].strip(_BLANKS)
        if not pattern and not keeps:
            continue
        try:
            if pattern in ("", "/"):
                if not keeps:  # the context itself, which cannot be left out
                    continue
                raise PatternError("'!' must be followed by a pattern", 0)
            rule = _rule(pattern, keeps)
        except PatternError as error:
            column = (line.index(pattern) if pattern else line.index("!")) + error.at + 1
            raise InvalidArgument(
                f"{file}:{number}:{column}: {line.strip(_BLANKS)!r}: {error}",
                code="ignore-invalid",
                hint="write '\\' before a character that is meant literally",
                file=file,
                line=number,
                column=column,
            ) from None
        if rule is not None:
            rules.append(rule)
    return IgnoreRules(rules)


def _rule(pattern: str, keeps: bool) -> _Rule | None:
    """The rule of a line; None: it can match nothing that is in a context."""
    clean = posixpath.normpath(pattern).lstrip("/")
    try:
        glob = parse_glob(clean)
    except PatternError:
        parse_glob(pattern)  # the same error, at its place in the line
        raise
    return None if clean in ("", ".") or glob.text.startswith("../") or clean == ".." else _Rule(glob, keeps)
