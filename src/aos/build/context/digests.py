"""Digests of the files of a context, remembered between builds so that an unchanged file is not read again.

A file is known by its identity: device, inode, size, modification time, change time. The kernel sets the change
time with every write, but in ticks: what is written within the tick in which a file was read shows no difference.
So a digest is remembered only when the file had been left alone for longer than a tick before the build began
(git's "racily clean" rule, "Documentation/technical/racy-git.adoc", with the stamp taken before instead of after).

One small file a context, replaced as a whole: builds at the same time lose nothing but each other's additions, and
whatever is damaged counts as empty.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import struct
from typing import TYPE_CHECKING

from aos.build.workspace.replace import replace_file
from aos.errors import AosError, Conflict, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from aos.content.tree import Reader, Tree

__all__ = ["FileDigests", "Identity", "changed", "identity_of", "unreadable"]

Identity = tuple[int, int, int, int, int]
"""Device, inode, size in bytes, modification time and change time in ns."""

_MAGIC = b"aos file digests 1\n"
_RECORD = struct.Struct("<QQQqq32s")
_TICK = 20_000_000  # ns; a kernel's tick is at most 10 ms (CONFIG_HZ=100)
_COARSE_TICK = 2_000_000_000  # ns; of file systems that keep whole seconds (FAT keeps every other)
_MOST_FILES = 200_000  # in one context's file: 14 MB
_MOST_CONTEXTS = 64
_CHUNK = 1 << 20
_PARALLEL_BYTES = 8 << 20
"""From so many on, threads pay: hashing runs without the interpreter's lock, opening and closing hardly does."""


class FileDigests:
    """The digests of one context's files; `began_ns`: when the build began, by the wall clock."""

    def __init__(self, file: Path | None = None, began_ns: int = 0) -> None:
        self._file = file
        self._began_ns = began_ns
        self._known = _load(file) if file is not None else {}
        self._used: dict[Identity, str] = {}
        self._new = False

    def get(self, identity: Identity) -> str:
        """The sha256 of a file's content in hexadecimal; "" when it must be read."""
        digest = self._used.get(identity) or self._known.get(identity, "")
        if digest:
            self._used[identity] = digest
        return digest

    def is_settled(self, identity: Identity) -> bool:
        """Whether a change of the file since the build began must show in its identity."""
        changed_ns = identity[4]
        return changed_ns < self._began_ns - (_TICK if changed_ns % 1_000_000_000 else _COARSE_TICK)

    def read(self, tree: Tree, files: Sequence[tuple[str, Identity]]) -> list[str]:
        """Hash files. Raise Conflict (`context-changed`), PermissionDenied (`file-unreadable`)."""
        found: list[str] = [""] * len(files)
        failures: list[BaseException] = []
        numbers = iter(range(len(files)))

        def work() -> None:
            try:
                with tree.reader() as reader:
                    for number in numbers:  # shared: the next one goes to whoever is free
                        if failures:
                            return
                        found[number] = _hash(reader, *files[number])
            except BaseException as error:  # raised below, where the caller is
                failures.append(error)

        large = sum(identity[2] for _, identity in files) >= _PARALLEL_BYTES
        _in_threads(work, min(4, os.cpu_count() or 1, len(files)) if large else 1)
        if failures:
            raise failures[0]
        for (_, identity), digest in zip(files, found, strict=True):
            self._used[identity] = digest
            self._new = self._new or self.is_settled(identity)
        return found

    def save(self) -> None:
        """Remember what was read. A disk that is full or read-only forbids nothing: the next build reads again."""
        if self._file is None or not self._new:
            return
        kept = {identity: digest for identity, digest in self._used.items() if self.is_settled(identity)}
        for identity, digest in self._known.items():  # of other stages, other Agentfiles; not for ever
            if len(kept) >= min(2 * len(self._used) + 1000, _MOST_FILES):
                break
            kept.setdefault(identity, digest)
        body = b"".join(
            _RECORD.pack(*identity, bytes.fromhex(digest))
            for identity, digest, _ in zip(kept, kept.values(), range(_MOST_FILES), strict=False)
        )
        with contextlib.suppress(OSError):
            _replace(self._file, _MAGIC + hashlib.sha256(body).digest() + body)


def identity_of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def changed(path: str) -> Conflict:
    return Conflict(
        f"copy: {path!r} changed while it was read",
        code="context-changed",
        hint="let nothing write to the context while it is built, then build again",
        path=path,
    )


def unreadable(path: str, error: OSError) -> AosError:
    """What an error of a file system means, when it met something that had just been listed."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE):
        return changed(path)
    return PermissionDenied(
        f"copy: cannot read {path!r}: {error.strerror}",
        code="file-unreadable",
        hint="correct its mode, or leave it out with .aosignore",
        path=path,
    )


def _hash(reader: Reader, path: str, identity: Identity) -> str:
    try:
        descriptor = reader.open(path)
        try:
            digest, left = hashlib.sha256(), identity[2]
            while left and (data := os.read(descriptor, min(left, _CHUNK))):
                digest.update(data)
                left -= len(data)
            if identity_of(os.fstat(descriptor)) != identity:
                raise changed(path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def _in_threads(work: Callable[[], None], count: int) -> None:
    import threading

    threads = [threading.Thread(target=work) for _ in range(count - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()


def _load(file: Path) -> dict[Identity, str]:
    try:
        data = file.read_bytes()
    except OSError:
        return {}
    start = len(_MAGIC) + 32
    body = memoryview(data)[start:]
    if data[:start] != _MAGIC + hashlib.sha256(body).digest() or len(body) % _RECORD.size:
        return {}
    return {record[:5]: record[5].hex() for record in _RECORD.iter_unpack(body)}


def _replace(file: Path, data: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in _surplus(file):
        old.unlink(missing_ok=True)
    replace_file(file, data)


def _surplus(file: Path) -> Iterator[Path]:
    """The files of the contexts that were built longest ago, and what killed builds left."""
    others = sorted(
        (path for path in file.parent.iterdir() if path != file), key=lambda path: path.lstat().st_mtime
    )
    yield from others[: max(0, len(others) - _MOST_CONTEXTS + 1)]
