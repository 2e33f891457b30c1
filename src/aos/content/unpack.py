"""Unpack one layer's tar into a directory, as an overlay lower directory. Archives are hostile.

Every path is walked with directory descriptors and O_NOFOLLOW, so no entry leads out, whatever links the archive
made before. OCI whiteouts become the kernel's form. Sources: OCI image specification 1.1, "layer.md"; the kernel's
Documentation/filesystems/overlayfs.rst; pax(1) for extended headers.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from aos.content.archive import OPAQUE, WHITEOUT, XATTR, mtime_ns, open_archive, path_parts, refused
from aos.content.compression import PIECE
from aos.content.protocol import id_unmapped
from aos.rootless.user import in_user_namespace

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator

    from aos.content.archive import Archive
    from aos.content.protocol import IdMap

__all__ = ["unpack"]

_ZEROS = bytes(PIECE)
_XATTR_IGNORED = ("security.selinux", "security.ima", "security.evm")
"""Labels of the host that made the archive; they mean nothing elsewhere."""


def unpack(pieces: Iterator[bytes], directory: int, id_map: IdMap) -> None:
    """Unpack the tar that `pieces` make into the empty directory behind this descriptor.

    Raises InvalidArgument (`layer-invalid`) that names the entry; what was unpacked so far is then the caller's
    to remove. All pieces are consumed.
    """
    tree = _Tree(directory, id_map)
    try:
        with open_archive(pieces) as archive:
            for entry in archive:
                tree.add(entry, archive)
            tree.finish()
    finally:
        tree.close()


class _Tree:
    def __init__(self, root: int, id_map: IdMap) -> None:
        self._root = root
        self._id_map = id_map
        self._parent: tuple[tuple[str, ...], int] | None = None
        self._directories: dict[tuple[str, ...], tarfile.TarInfo] = {}
        ordinary = os.geteuid() != 0 or in_user_namespace()
        self._overlay = "user.overlay." if ordinary else "trusted.overlay."
        self._devices = not ordinary

    def add(self, entry: tarfile.TarInfo, archive: Archive) -> None:
        parts = path_parts(entry.name)
        try:
            self._add(entry, parts, archive)
        except OSError as error:
            if error.errno is not None and error.errno in _ENTRY_ERRORS:
                raise refused(entry.name, error.strerror or str(error)) from error
            raise

    def _add(self, entry: tarfile.TarInfo, parts: tuple[str, ...], archive: Archive) -> None:
        if not parts:
            if not entry.isdir():
                raise refused(entry.name, "the root must be a directory")
            self._directories[()] = entry
            return
        parent, name = self._open(parts[:-1]), parts[-1]
        if name == OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent}", self._overlay + "opaque", b"y")
            return
        if name.startswith(WHITEOUT):
            victim = name.removeprefix(WHITEOUT)
            if victim in ("", ".", ".."):
                raise refused(entry.name, "not a whiteout of anything")
            self._make_room(parent, victim, parts)
            os.mknod(victim, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
            return
        if entry.isdir():
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o755, dir_fd=parent)
            self._directories[parts] = entry
            return
        self._make_room(parent, name, parts)
        if entry.isreg():
            self._write(entry, name, parent, archive)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            self._link(entry, name, parts)
            return
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            if entry.ischr() and entry.devmajor == entry.devminor == 0:
                raise refused(entry.name, "a character device 0:0 would be a whiteout")
            if not self._devices:
                return  # nobody but the host's root makes devices, and no sandbox opens those of a layer
            os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
        else:
            raise refused(entry.name, f"an entry of unknown type {entry.type!r}")
        self._dress(entry, name, parent)

    def _write(self, entry: tarfile.TarInfo, name: str, parent: int, archive: Archive) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            for piece in archive.content(entry):
                if piece == _ZEROS:
                    os.lseek(descriptor, PIECE, os.SEEK_CUR)  # a hole
                else:
                    _write_all(descriptor, piece)
            if entry.size >= PIECE:
                os.ftruncate(descriptor, entry.size)  # where it ends with a hole
        finally:
            os.close(descriptor)

    def _link(self, entry: tarfile.TarInfo, name: str, parts: tuple[str, ...]) -> None:
        target = path_parts(entry.linkname)
        if not target:
            raise refused(entry.name, "a hard link to the root")
        source = self._open(target[:-1], make=False)
        source = os.dup(source)
        try:
            os.link(
                target[-1], name, src_dir_fd=source, dst_dir_fd=self._open(parts[:-1]), follow_symlinks=False
            )
        finally:
            os.close(source)

    def _dress(self, entry: tarfile.TarInfo, name: str, parent: int) -> None:
        """Owner, then mode (chown clears setuid), then attributes (chown clears capabilities), then time."""
        uid, gid = self._id_map.to_host(entry.uid, entry.gid)
        if os.geteuid() == 0:
            try:
                os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno == errno.EINVAL:  # our user namespace has no such id
                    raise id_unmapped(f"{uid}:{gid}", entry.name) from error
                raise
        if not entry.issym():
            os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
        for key, value in entry.pax_headers.items():
            if key.startswith(XATTR):
                self._xattr(entry, f"/proc/self/fd/{parent}/{name}", key.removeprefix(XATTR), value)
        time = mtime_ns(entry)
        os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)

    def _xattr(self, entry: tarfile.TarInfo, path: str, key: str, value: str) -> None:
        if key in _XATTR_IGNORED:
            return
        if key != "security.capability" and (not key.startswith("user.") or key.startswith("user.overlay.")):
            raise refused(entry.name, f"the extended attribute {key!r} is not allowed in a layer")
        os.setxattr(path, key, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)

    def _make_room(self, parent: int, name: str, parts: tuple[str, ...]) -> None:
        """A later entry replaces an earlier one of the same name."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(name, dir_fd=parent)
            self._directories.pop(parts, None)

    def _open(self, parts: tuple[str, ...], *, make: bool = True) -> int:
        """A descriptor of this directory, kept until the next call; missing ones are made."""
        if self._parent is not None and self._parent[0] == parts:
            return self._parent[1]
        current = os.dup(self._root)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            for part in parts:
                try:
                    following = os.open(part, flags, dir_fd=current)
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, dir_fd=current)
                    os.chmod(part, 0o755, dir_fd=current)  # whatever the umask
                    following = os.open(part, flags, dir_fd=current)
                os.close(current)
                current = following
        except BaseException:
            os.close(current)
            raise
        self.close()
        self._parent = (parts, current)
        return current

    def finish(self) -> None:
        """Directories get their metadata last: what is put into them would change it."""
        for parts in sorted(self._directories, key=len, reverse=True):
            entry = self._directories[parts]
            if parts:
                self._dress(entry, parts[-1], self._open(parts[:-1]))
            else:
                self._dress(entry, ".", self._root)

    def close(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


_ENTRY_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        "ELOOP",
        "ENOTDIR",
        "ENOENT",
        "EEXIST",
        "ENOTEMPTY",
        "EISDIR",
        "ENAMETOOLONG",
        "EINVAL",
        "EPERM",
        "EOPNOTSUPP",
    )
)
"""What an archive can provoke, in contrast to a full or broken disk."""
