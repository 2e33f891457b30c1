"""What a `copy` takes: patterns of a tree become exact lists of files, each with the digest of its content.

This is a copy's input and so half of its cache key; where the files go is `steps/copy.py`'s concern.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aos.build.glob import PatternError, glob_to_regex
from aos.build.ignore import IGNORE_FILES, IgnoreRules, parse_ignore
from aos.content.tree import ContextTree, Tree, join, resolve
from aos.errors import InvalidArgument, NotFound, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Context", "Entry", "Source", "digest_of_sources", "open_context", "select"]

_CHUNK = 1 << 20
_DEEPEST = 200
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class Entry:
    path: str
    """In the tree it comes from."""
    relative: str
    """Below its source; "" for the source itself."""
    kind: Literal["file", "directory", "link"]
    mode: int
    """Permission bits."""
    content: str = ""
    """Of a file: sha256 of what it holds (empty where it was not asked for); of a link: its target."""


@dataclass(frozen=True, slots=True)
class Source:
    """One path that matched, and everything below it; directories before what they hold."""

    name: str
    """The last component of its path; "" for the root."""
    entries: tuple[Entry, ...]

    @property
    def is_directory(self) -> bool:
        return self.entries[0].kind == "directory"


@dataclass(frozen=True, slots=True)
class Context:
    """The directory a build reads, and the rules that hide parts of it."""

    tree: ContextTree
    rules: IgnoreRules
    ignore_file: str = ""


def open_context(directory: Path) -> Context:
    """Raise NotFound (`context-not-found`), InvalidArgument (`context-invalid`, `ignore-invalid`)."""
    try:
        root = directory.resolve(strict=True)
    except OSError as error:
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
    for name in IGNORE_FILES:
        try:
            data = (root / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise PermissionDenied(
                f"cannot read {root / name}: {error.strerror}", code="file-unreadable"
            ) from error
        return Context(ContextTree(root), parse_ignore(data, name), name)
    return Context(ContextTree(root), IgnoreRules())


def select(tree: Tree, patterns: Iterable[str], *, rules: IgnoreRules, hashed: bool) -> tuple[Source, ...]:
    """Find what `patterns` name, in a deterministic order. `hashed`: read every file for its digest.

    Raise NotFound (`copy-source-missing`), InvalidArgument (`path-escapes`, `pattern-invalid`, `special-file`, `tree-too-deep`),
    PermissionDenied (`file-unreadable`).
    """
    sources: list[Source] = []
    for pattern in patterns:
        paths = list(_match(tree, pattern))
        kept = [path for path in paths if not rules.ignores(path) or rules.level(path).keeps_below]
        found = [source for path in kept if (source := _collect(tree, path, rules, hashed))]
        if not found:
            raise NotFound(
                f"copy: {pattern!r} matches nothing" + (" that is not ignored" if paths else ""),
                code="copy-source-missing",
                hint="the ignore file leaves it out" if paths else "paths are relative to the build context",
                path=pattern,
            )
        sources += found
    return tuple(sources)


def digest_of_sources(sources: Iterable[Source]) -> str:
    """Identify content, names, links and executable bits; not times, owners, or the other permission bits."""
    digest = hashlib.sha256()
    for source in sources:
        for entry in source.entries:
            fields = (
                source.name,
                entry.relative,
                entry.kind,
                "x" if entry.kind == "file" and entry.mode & 0o111 else "",
                entry.content,
            )
            for text in fields:
                data = os.fsencode(text)
                digest.update(b"%d:" % len(data) + data)
    return "sha256:" + digest.hexdigest()


def _match(tree: Tree, pattern: str) -> Iterator[str]:
    if tree.confined and ".." in pattern.split("/"):
        resolve(tree, pattern, follow_last=False)  # names what is wrong with it when it leads out
    if not any(char in pattern for char in "*?[\\"):
        path = resolve(tree, pattern, follow_last=pattern.endswith("/"))
        if tree.lstat(path) is not None:
            yield path
        return
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    yield from _match_parts(tree, "", parts, pattern)


def _match_parts(tree: Tree, directory: str, parts: list[str], pattern: str) -> Iterator[str]:
    if not parts:
        yield directory
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        yield from _match_parts(tree, directory, rest or ["*"], pattern)
        for name in tree.names(directory):
            status = tree.lstat(join(directory, name))
            if status is not None and stat.S_ISDIR(status.st_mode) and rest:
                yield from _match_parts(tree, join(directory, name), parts, pattern)
        return
    try:
        regex = glob_to_regex(first)
    except PatternError as error:
        raise InvalidArgument(f"copy: {pattern!r}: {error}", code="pattern-invalid", path=pattern) from None
    for name in tree.names(directory):
        if not regex.fullmatch(name):
            continue
        path = join(directory, name)
        if rest:
            path = resolve(tree, path, follow_last=True)
            status = tree.lstat(path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                continue
        yield from _match_parts(tree, path, rest, pattern)


def _collect(tree: Tree, path: str, rules: IgnoreRules, hashed: bool) -> Source | None:
    """The source at `path`; None when the rules leave nothing of it."""
    entries = tuple(_walk(tree, path, "", rules, hashed))
    if not entries:
        return None
    return Source(path.rpartition("/")[2], entries)


def _walk(tree: Tree, path: str, relative: str, rules: IgnoreRules, hashed: bool) -> Iterator[Entry]:
    status = tree.lstat(path)
    if status is None:
        return
    if relative.count("/") >= _DEEPEST:
        raise InvalidArgument(
            f"copy: directories below {path[:60]!r}… are nested more than {_DEEPEST} levels deep",
            code="tree-too-deep",
            hint="leave them out with .aosignore",
        )
    ignored = rules.ignores(path)
    mode = stat.S_IMODE(status.st_mode)
    try:
        if stat.S_ISDIR(status.st_mode):
            if ignored and not rules.level(path).keeps_below:
                return
            below = [
                entry
                for name in tree.names(path)
                for entry in _walk(tree, join(path, name), join(relative, name), rules, hashed)
            ]
            if not ignored or below:
                yield Entry(path, relative, "directory", mode)
                yield from below
        elif ignored:
            return
        elif stat.S_ISLNK(status.st_mode):
            yield Entry(path, relative, "link", 0o777, tree.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            yield Entry(path, relative, "file", mode, _hash(tree, path) if hashed else "")
        else:
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
            raise InvalidArgument(
                f"copy: {path!r} is {kind}; only files, directories and links can be copied",
                code="special-file",
                hint="remove it, or leave it out with .aosignore",
                path=path,
            )
    except PermissionError as error:
        raise PermissionDenied(
            f"copy: cannot read {path!r}: {error.strerror}",
            code="file-unreadable",
            hint="correct its mode, or leave it out with .aosignore",
            path=path,
        ) from error


def _hash(tree: Tree, path: str) -> str:
    digest = hashlib.sha256()
    with os.fdopen(tree.open(path), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
