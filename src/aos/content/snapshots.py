"""Snapshots: layers unpacked once, each in a directory of its own, ready to be an overlay's lower directory.
A build's layers are not even unpacked: the directory that a layer was made of is adopted.

    snapshots/<24 hex>         the tree; its existence means that it is whole and synced
    snapshots.of/<24 hex>/     the blobs it was asked for under, one empty file each: it lives as long as one does
    snapshots/.<24 hex>        being unpacked, by the holder of the lock on snapshots.of/<24 hex>.lock

Names are short because all lower directories of a mount share one page of mount options.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from aos.content.blobs import storage_error
from aos.content.compression import PIECE, decompressed
from aos.content.protocol import IdMap
from aos.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aos.content.protocol import Blobs
    from aos.oci.digest import Digest
    from aos.oci.layer import Layer

__all__ = ["SnapshotStore", "sync_tree"]


class SnapshotStore:
    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._blobs = blobs
        self.directory = root / "snapshots"
        self._of = root / "snapshots.of"
        self._known: set[tuple[str, Digest]] = set()
        for directory in (self.directory, self._of):
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise storage_error(error, directory) from error

    def ensure(self, layers: Sequence[Layer], id_map: IdMap) -> tuple[Path, ...]:
        """Unpack what is missing, base first; all of them are children of `directory`."""
        return tuple(self._ensure(layer, id_map) for layer in layers)

    def known(self, layers: Sequence[Layer], id_map: IdMap) -> tuple[Path, ...] | None:
        found: list[Path] = []
        for layer in layers:
            path = self._find(layer, _name(layer.diff_id, id_map))
            if path is None:
                return None
            found.append(path)
        return tuple(found)

    def _find(self, layer: Layer, name: str) -> Path | None:
        path = self.directory / name
        return path if (name, layer.digest) in self._known and path.exists() else None

    def _ensure(self, layer: Layer, id_map: IdMap) -> Path:
        name = _name(layer.diff_id, id_map)
        if (found := self._find(layer, name)) is not None:
            return found
        path = self.directory / name
        try:
            marker = self._of / name / layer.digest.removeprefix("sha256:")
            if not (path.exists() and marker.exists()):
                with self._locked(name):
                    if not path.exists():
                        self._unpack(layer, id_map, path)
                    self._mark(name, layer)
        except OSError as error:
            raise storage_error(error, path) from error
        self._known.add((name, layer.digest))
        return path

    def adopt(self, layer: Layer, tree: Path) -> None:
        """Make `tree`, which the layer was made of, its snapshot under the identity map: it is moved away.

        The caller vouches that it is exactly what unpacking would give, that its file system was synced since it
        was last written to (`sync_tree`), and that nobody writes to it. It stays where it is when the snapshot exists, when
        somebody unpacks it right now, or when it lies on another file system."""
        name = _name(layer.diff_id, IdMap.identity())
        path = self.directory / name
        try:
            with self._locked(name, wait=False) as free:
                if not free or path.exists():
                    return
                try:
                    tree.rename(path)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    return
                self._mark(name, layer)
        except OSError as error:
            raise storage_error(error, path) from error
        self._known.add((name, layer.digest))

    def _mark(self, name: str, layer: Layer) -> None:
        marker = self._of / name / layer.digest.removeprefix("sha256:")
        marker.parent.mkdir(exist_ok=True, mode=0o700)
        marker.touch()

    def _unpack(self, layer: Layer, id_map: IdMap, path: Path) -> None:
        from aos.content.unpack import unpack

        temporary = path.with_name("." + path.name)
        _remove(temporary)
        temporary.mkdir()
        temporary.chmod(0o755)  # whatever the umask: it is an agent's root directory
        digest = hashlib.sha256()

        def hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
            for piece in pieces:
                digest.update(piece)
                yield piece

        try:
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with self._blobs.open(layer.digest) as stored:
                    unpack(hashed(decompressed(stored, layer.media_type)), descriptor, id_map)
                    while stored.read(PIECE):
                        pass  # to its end, where the blob is verified
                if "sha256:" + digest.hexdigest() != layer.diff_id:
                    raise DataLoss(
                        f"layer {layer.digest} does not unpack to {layer.diff_id}",
                        code="diff-id-mismatch",
                        hint="remove the package and pull or build it again",
                        digest=layer.digest,
                    )
                _sync_file_system(descriptor)
            finally:
                os.close(descriptor)
            temporary.rename(path)
        except BaseException:
            _remove(temporary)
            raise

    def collect(self, reachable: set[Digest], young_ns: int | None, *, dry_run: bool) -> tuple[int, int]:
        """Remove trees that no reachable blob asks for; (count, bytes). Only inside a collection (gc.py)."""
        count = size = 0
        for entry in list(self.directory.iterdir()):
            name = entry.name.lstrip(".")
            if entry.name == name:
                markers = self._of / name
                if young_ns is not None and entry.stat().st_ctime_ns >= young_ns:
                    continue
                if any("sha256:" + marker.name in reachable for marker in markers.glob("*")):
                    continue
            with self._locked(name, wait=False) as free:
                if not free:
                    continue
                count, size = count + 1, size + _size(entry)
                if not dry_run:
                    doomed = entry.with_name("." + name)
                    if entry != doomed:
                        _remove(doomed)
                        entry.rename(doomed)
                    _remove(doomed)
                    shutil.rmtree(self._of / name, ignore_errors=True)
        return count, size

    def size(self) -> int:
        """Bytes of all trees, as the file system counts them."""
        return sum(_size(entry) for entry in self.directory.iterdir())

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        descriptor = os.open(self._of / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


def _name(diff_id: Digest, id_map: IdMap) -> str:
    identity = diff_id if id_map.is_identity else f"{diff_id} {id_map}"
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def _size(tree: Path) -> int:
    total = 0
    for directory, _, files in os.walk(tree):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512  # noqa: PTH118
    return total


def _remove(tree: Path) -> None:
    with suppress(FileNotFoundError):
        if tree.is_dir():
            shutil.rmtree(tree)
        else:
            tree.unlink()


def sync_tree(tree: Path) -> None:
    """Write everything below to the disk, and whatever else its file system holds."""
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync_file_system(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(descriptor: int) -> None:
    """syncfs(2): one flush instead of one fsync for each of ten thousand files."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
