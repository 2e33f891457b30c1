"""What a `copy` takes: patterns of a tree become exact lists of files, each with the digest of its content.

This is a copy's input and so half of its cache key; where the files go is `steps/copy.py`'s concern.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from aos.build.digests import FileDigests, Identity, changed, identity_of, unreadable
from aos.build.glob import PatternError, glob_to_regex, is_literal
from aos.build.ignore import IGNORE_FILES, IgnoreRules, parse_ignore
from aos.content.tree import ContextTree, Tree, join, resolve
from aos.errors import InvalidArgument, NotFound, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from aos.build.ignore import Level
    from aos.content.tree import Reader

__all__ = ["Context", "Entry", "Source", "digest_of_sources", "open_context", "select"]

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


@dataclass(frozen=True, slots=True)
class Context:
    """The directory a build reads, the rules that hide parts of it, and what is known of its files."""

    tree: ContextTree
    rules: IgnoreRules
    digests: FileDigests
    ignore_file: str = ""


def open_context(directory: Path, *, memory: Path | None = None, began: float = 0.0) -> Context:
    """`memory`: where digests are kept between builds; `began`: when this one began, in seconds since 1970.

    Raise NotFound (`context-not-found`), InvalidArgument (`context-invalid`, `ignore-invalid`), PermissionDenied
    (`file-unreadable`).
    """
    try:
        root = directory.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links (until Python 3.13)
        raise NotFound(
            f"the build context {str(directory)!r} does not exist",
            code="context-not-found",
            hint="name the directory that holds the files to copy: aos build [CONTEXT]",
        ) from error
    if not root.is_dir():
        raise InvalidArgument(
            f"the build context {str(directory)!r} is not a directory",
            code="context-invalid",
            hint="name the directory that holds the Agentfile, or name the file with -f",
        )
    file = memory and memory / hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    digests = FileDigests(file, int(began * 1e9))
    for name in IGNORE_FILES:
        try:
            data = (root / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise PermissionDenied(
                f"cannot read {str(root / name)!r}: {error.strerror}",
                code="file-unreadable",
                hint="correct its mode, or remove it",
            ) from error
        return Context(ContextTree(root), parse_ignore(data, name), digests, name)
    return Context(ContextTree(root), IgnoreRules(), digests)


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
        walk = _Walk(reader, rules, digests)
        for pattern in patterns:
            paths = _match(tree, pattern)
            found = [Source(path, entries) for path in paths if (entries := walk.entries(tree, path))]
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


def _match(tree: Tree, pattern: str) -> list[str]:
    try:
        if tree.confined and ".." in pattern.split("/"):
            resolve(tree, pattern, follow_last=False)  # names what is wrong with it when it leads out
        if is_literal(pattern):
            path = resolve(tree, pattern, follow_last=pattern.endswith("/"))
            return [path] if tree.lstat(path) is not None else []
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        return list(dict.fromkeys(_match_parts(tree, "", parts)))
    except PatternError as error:
        raise InvalidArgument(f"copy: {pattern!r}: {error}", code="pattern-invalid", path=pattern) from None
    except OSError as error:
        raise unreadable(pattern, error) from error


def _match_parts(tree: Tree, directory: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield directory
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        yield from _match_parts(tree, directory, rest or ["*"])
        for name in tree.names(directory) if rest else ():
            status = tree.lstat(join(directory, name))
            if status is not None and stat.S_ISDIR(status.st_mode):
                yield from _match_parts(tree, join(directory, name), parts)
        return
    matches = glob_to_regex(first).fullmatch
    for name in tree.names(directory):
        if not matches(name):
            continue
        path = join(directory, name)
        if rest:
            path = resolve(tree, path, follow_last=True)
            status = tree.lstat(path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                continue
        yield from _match_parts(tree, path, rest)


class _Walk:
    """Lists what lies below a path, and takes the digests that are known already."""

    def __init__(self, reader: Reader, rules: IgnoreRules | None, digests: FileDigests | None) -> None:
        self._reader = reader
        self._rules = rules or None
        self._digests = digests

    def entries(self, tree: Tree, path: str) -> list[Entry]:
        """The entry at `path` and all below it; none when the rules leave nothing of it."""
        try:
            status = tree.lstat(path)
        except OSError as error:
            raise unreadable(path, error) from error
        found: list[Entry] = []
        if status is None:
            raise changed(path)
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
