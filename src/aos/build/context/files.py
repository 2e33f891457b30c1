"""The build context: the directory that `copy` reads, the rules that hide parts of it, what is known of its files."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.build.context.digests import FileDigests
from aos.build.context.ignore import IGNORE_FILES, IgnoreRules, parse_ignore
from aos.content.tree import by_name, join
from aos.errors import InvalidArgument, NotFound, PermissionDenied

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Context", "ContextTree", "open_context"]

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would be waited for


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
        if (root / name).is_symlink() and not (root / name).resolve().is_relative_to(root):
            raise _unreadable(root / name, "it is a link that leads out of the context")
        try:
            with os.fdopen(os.open(root / name, _READ), "rb") as opened:
                if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                    raise _unreadable(root / name, "it is no regular file")
                data = opened.read()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(root / name, error.strerror) from error
        return Context(ContextTree(root), parse_ignore(data, name), digests, name)
    return Context(ContextTree(root), IgnoreRules(), digests)


def _unreadable(file: Path, why: str | None) -> PermissionDenied:
    return PermissionDenied(
        f"cannot read {str(file)!r}: {why}", code="file-unreadable", hint="correct its mode, or remove it"
    )


@dataclass(frozen=True, slots=True)
class ContextTree:
    """One directory of the host, which others may change at any time: every step of every path is opened from the
    one before, and never through a link, so that nothing outside is reached even when a directory becomes a link
    between two looks."""

    root: Path
    confined: bool = True

    def lstat(self, path: str) -> os.stat_result | None:
        with self.reader() as reader:
            try:
                return reader.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def readlink(self, path: str) -> str:
        with self.reader() as reader:
            return reader.readlink(path)

    def names(self, path: str) -> list[str]:
        with self.reader() as reader:
            return [name for name, _ in reader.scan(path)]

    def open(self, path: str) -> int:
        with self.reader() as reader:
            return reader.open(path)

    def reader(self) -> _ContextReader:
        return _ContextReader(self.root)


class _ContextReader:
    """Keeps the directories open that lead to where it read last."""

    def __init__(self, root: Path) -> None:
        self._directories = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
        self._path = ""

    def __enter__(self) -> _ContextReader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._directories:
            os.close(self._directories.pop())

    def lstat(self, path: str) -> os.stat_result:
        parent, name = self._at(path)
        return os.lstat(name or ".", dir_fd=parent)

    def readlink(self, path: str) -> str:
        parent, name = self._at(path)
        return os.readlink(name, dir_fd=parent)

    def open(self, path: str) -> int:
        parent, name = self._at(path)
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)

    def scan(self, directory: str) -> list[tuple[str, os.stat_result]]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = os.open(".", flags, dir_fd=self._directory(directory))
        try:
            with os.scandir(descriptor) as found:
                entries = [(entry.name, entry.stat(follow_symlinks=False)) for entry in found]
        finally:
            os.close(descriptor)
        return sorted(entries, key=by_name)

    def _at(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return self._directory(parent), name

    def _directory(self, path: str) -> int:
        if path == self._path:
            return self._directories[-1]
        parts, here = path.split("/") if path else [], self._path.split("/") if self._path else []
        common = 0
        while common < min(len(parts), len(here)) and parts[common] == here[common]:
            common += 1
        while len(self._directories) > common + 1:
            os.close(self._directories.pop())
        self._path = "/".join(parts[:common])
        for part in parts[common:]:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._directories.append(os.open(part, flags, dir_fd=self._directories[-1]))
            self._path = join(self._path, part)
        return self._directories[-1]
