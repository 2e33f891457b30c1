"""What a `copy` takes: patterns of a tree become exact lists of files, each with the digest of its content.

This is a copy's input and so half of its cache key; where the files go is `steps/copy.py`'s concern.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from aos.build.context.digests import identity_of, unreadable
from aos.build.context.glob import PatternError, glob_to_regex, is_literal
from aos.content.tree import join, resolve
from aos.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aos.build.context.digests import FileDigests, Identity
    from aos.build.context.ignore import IgnoreRules, Level
    from aos.content.tree import Reader, Tree

__all__ = ["Entry", "Source", "digest_of_sources", "select"]

_DEEPEST = 200
_LONGEST = 3000  # of Linux's 4095 (PATH_MAX); the rest is for where builds and snapshots lie
_WHERE = {
    True: "paths are relative to the build context",
    False: "paths are those of the stage or image that `from` names",
}
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Entry(NamedTuple):
    path: str
    """In the tree it comes from."""
    kind: Literal["file", "directory", "link"]
    mode: int
    """Permission bits."""
    content: str = ""
    """Of a file: sha256 of what it holds (empty where it was not asked for); of a link: its target."""
    identity: Identity | None = None
    """Of a file."""
    names: int = 1
    """Of a file: how many names it has, in the tree or elsewhere."""


@dataclass(frozen=True, slots=True)
class Source:
    """One path that matched, and everything below it; directories before what they hold."""

    path: str
    """In the tree it comes from; "" for the root."""
    entries: list[Entry]

    @property
    def name(self) -> str:
        """The last component of its path; "" for the root."""
        return self.path.rpartition("/")[2]

    @property
    def is_directory(self) -> bool:
        return self.entries[0].kind == "directory"

    def relative(self, entry: Entry) -> str:
        """Where an entry lies below the source; "" for the source itself."""
        return entry.path[len(self.path) + 1 :] if self.path else entry.path


def select(
    tree: Tree,
    patterns: Iterable[str],
    *,
    rules: IgnoreRules | None = None,
    digests: FileDigests | None = None,
) -> tuple[Source, ...]:
    """Find what `patterns` name, in a deterministic order, and the digest of each file if `digests` are there.

    Raise NotFound (`copy-source-missing`), InvalidArgument (`path-escapes`, `pattern-invalid`, `special-file`,
    `tree-too-deep`), PermissionDenied (`file-unreadable`), Conflict (`context-changed`).
    """
    sources: list[Source] = []
    with tree.reader() as reader:
        selection = _Selection(tree, reader, rules, digests)
        for pattern in patterns:
            paths = selection.paths(pattern)
            found = [Source(path, entries) for path in paths if (entries := selection.entries(path))]
            if not found:
                raise NotFound(
                    f"copy: {pattern!r} matches nothing" + (" that is not ignored" if paths else ""),
                    code="copy-source-missing",
                    hint="the ignore file leaves it out"
                    if paths
                    else "paths are relative to the build context",
                    path=pattern,
                )
            sources += found
    if digests is not None:
        _complete(tree, sources, digests)
    return tuple(sources)


def digest_of_sources(sources: Iterable[Source]) -> str:
    """Identify content, names, links of both kinds, and executable bits; not times, owners, or other permission bits.

    No field holds a NUL, and their number is fixed, so that no two selections look the same.
    """
    fields: list[str] = []
    first: dict[tuple[int, int], int] = {}
    for source in sources:
        fields += ("source", source.name, str(len(source.entries)))
        for entry in source.entries:
            kind: str = entry.kind
            if entry.identity is not None:
                if entry.mode & 0o111:
                    kind = "program"
                if entry.names > 1 and (twin := first.setdefault(entry.identity[:2], len(fields))) < len(
                    fields
                ):
                    kind += f" {twin}"
            fields += (source.relative(entry), kind, entry.content)
    return "sha256:" + hashlib.sha256(os.fsencode("\0".join(fields))).hexdigest()


class _Selection:
    """Finds paths, lists what lies below them, and takes the digests that are known already."""

    def __init__(
        self, tree: Tree, reader: Reader, rules: IgnoreRules | None, digests: FileDigests | None
    ) -> None:
        self._tree = tree
        self._reader = reader
        self._rules = rules or None
        self._digests = digests

    def paths(self, pattern: str) -> list[str]:
        """What a pattern matches, whether ignored or not; directories that are ignored as a whole are not searched."""
        tree = self._tree
        try:
            if tree.confined and ".." in pattern.split("/"):
                resolve(tree, pattern, follow_last=False)  # names what is wrong with it when it leads out
            if is_literal(pattern):
                path = resolve(tree, pattern, follow_last=pattern.endswith("/"))
                return [path] if tree.lstat(path) is not None else []
            parts = [part for part in pattern.split("/") if part not in ("", ".")]
            return list(dict.fromkeys(self._matches("", parts)))
        except PatternError as error:
            raise InvalidArgument(
                f"copy: {pattern!r}: {error}",
                code="pattern-invalid",
                hint="write '\\' before a character that is meant literally",
                path=pattern,
            ) from None
        except OSError as error:
            raise unreadable(pattern, error) from error

    def _matches(self, directory: str, parts: list[str]) -> Iterator[str]:
        first, rest = parts[0], parts[1:]
        if first == "**":
            yield from self._matches(directory, rest or ["*"])
            if not rest:
                return
            first, rest = "*", parts
        matches = glob_to_regex(first).fullmatch
        for name, status in self._reader.scan(directory):
            if not matches(name):
                continue
            path = join(directory, name)
            if not rest:
                yield path
            elif stat.S_ISDIR(status.st_mode):
                if not self._hides(path):
                    yield from self._matches(path, rest)
            elif stat.S_ISLNK(status.st_mode) and parts[0] != "**":
                path = resolve(self._tree, path, follow_last=True)
                aim = self._tree.lstat(path)
                if aim is not None and stat.S_ISDIR(aim.st_mode):
                    yield from self._matches(path, rest)

    def _hides(self, directory: str) -> bool:
        """Whether the rules leave out a directory and everything below it."""
        rules = self._rules
        return rules is not None and rules.ignores(directory) and not rules.level(directory).keeps_below

    def entries(self, path: str) -> list[Entry]:
        """The entry at `path` and all below it; none when the rules leave nothing of it."""
        try:
            status = self._reader.lstat(path)
        except OSError as error:
            raise unreadable(path, error) from error
        found: list[Entry] = []
        ignored = self._rules is not None and self._rules.ignores(path)
        if stat.S_ISDIR(status.st_mode):
            level = self._rules.level(path) if self._rules is not None else None
            if not ignored or (level is not None and level.keeps_below):
                self._directory(path, status, ignored, level, found, 0)
        elif not ignored:
            found.append(self._leaf(path, status))
        return found

    def _directory(
        self,
        path: str,
        status: os.stat_result,
        ignored: bool,
        level: Level | None,
        found: list[Entry],
        depth: int,
    ) -> None:
        if depth > _DEEPEST or len(path) > _LONGEST:
            raise InvalidArgument(
                f"copy: what lies below {path[:60]!r}… is nested too deeply: more than {_DEEPEST} directories, or a "
                f"path of more than {_LONGEST} characters",
                code="tree-too-deep",
                hint="leave it out with .aosignore",
            )
        start = len(found)
        found.append(Entry(path, "directory", stat.S_IMODE(status.st_mode)))
        try:
            children = self._reader.scan(path)
        except OSError as error:
            raise unreadable(path, error) from error
        prefix = f"{path}/" if path else ""
        for name, inner in children:
            child = prefix + name
            hidden = level is not None and level.ignores(child, name)
            if stat.S_ISDIR(inner.st_mode):
                below = level.below(child, name) if level is not None else None
                if not hidden or (below is not None and below.keeps_below):
                    self._directory(child, inner, hidden, below, found, depth + 1)
            elif not hidden:
                found.append(self._leaf(child, inner))
        if ignored and len(found) == start + 1:
            del found[start:]

    def _leaf(self, path: str, status: os.stat_result) -> Entry:
        mode = status.st_mode
        if stat.S_ISREG(mode):
            identity = identity_of(status)
            digest = self._digests.get(identity) if self._digests is not None else ""
            return Entry(path, "file", stat.S_IMODE(mode), digest, identity, status.st_nlink)
        if stat.S_ISLNK(mode):
            try:
                return Entry(path, "link", 0o777, self._reader.readlink(path))
            except OSError as error:
                raise unreadable(path, error) from error
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise InvalidArgument(
            f"copy: {path!r} is {kind}; only files, directories and links can be copied",
            code="special-file",
            hint="remove it, or leave it out with .aosignore",
            path=path,
        )


def _complete(tree: Tree, sources: Iterable[Source], digests: FileDigests) -> None:
    """Read the files whose digest is not known."""
    missing = [
        (source.entries, number, entry.path, entry.identity)
        for source in sources
        for number, entry in enumerate(source.entries)
        if entry.identity is not None and not entry.content
    ]
    found = digests.read(tree, [(path, identity) for _, _, path, identity in missing])
    for (entries, number, _, _), digest in zip(missing, found, strict=True):
        entries[number] = entries[number]._replace(content=digest)
