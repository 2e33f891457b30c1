"""Places to copy from and to: paths that never lead out of what they belong to, whoever changes links meanwhile.

The kernel resolves them (openat2(2)): an agent's inside of its root, what is unpacked on this host beneath the target
and through no link at all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

__all__ = ["BENEATH", "INSIDE", "Place", "split"]

_OPENAT2 = 437
"""The system call's number, on every architecture."""
INSIDE = 0x10
"""RESOLVE_IN_ROOT, linux/openat2.h: links and `..` are resolved as if the descriptor were the root."""
BENEATH = 0x08 | 0x04
"""RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS."""
_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 1 << 2
_TRIES = 128
"""The kernel gives up with EAGAIN when something is renamed while it resolves."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Place:
    """A directory and how paths in it are resolved. With `resolve` 0 they are as for any program."""

    def __init__(self, descriptor: int, resolve: int) -> None:
        self._descriptor = descriptor
        self._resolve = resolve
        self.inside = resolve == INSIDE
        self.first_id = 0
        """The number on this host of what is 0 in there: an agent may have user ids of its own."""

    def close(self) -> None:
        os.close(self._descriptor)

    def become_its_root(self) -> None:
        """Let what this thread makes belong to who is 0 in there: in a mounted directory the host's root has no number.

        setfsuid(2) of this thread; it keeps its capabilities (SECBIT_NO_SETUID_FIXUP of capabilities(7))."""
        if self.first_id:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(_NO_SETUID_FIXUP), 0, 0, 0) == 0:
                libc.setfsuid(ctypes.c_uint(self.first_id))
                libc.setfsgid(ctypes.c_uint(self.first_id))

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """A descriptor; OSError, EXDEV for a path that would leave."""
        how = _How(flags | os.O_CLOEXEC, mode, self._resolve)
        name = os.fsencode(path.lstrip("/") or ".")
        libc = ctypes.CDLL(None, use_errno=True)
        code = 0
        for _ in range(_TRIES):
            found: int = libc.syscall(
                _OPENAT2, self._descriptor, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
            )
            if found >= 0:
                return found
            code = ctypes.get_errno()
            if code != errno.EAGAIN:
                break
        raise OSError(code, os.strerror(code), path)

    def look(self, path: str, *, follow: bool = True) -> os.stat_result | None:
        """What is there; None when nothing is."""
        try:
            descriptor = self.open(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        except FileNotFoundError:
            return None
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def directory(self, path: str, *, make: bool = False) -> int:
        """A descriptor of a directory; with `make`, it and its parents come into being."""
        try:
            return self.open(path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
        parent, name = split(path)
        above = self.directory(parent, make=True)
        try:
            os.mkdir(name, 0o755, dir_fd=above)
        except FileExistsError:
            pass
        finally:
            os.close(above)
        return self.open(path, os.O_PATH | os.O_DIRECTORY)

    def is_directory(self, path: str) -> bool:
        found = self.look(path)
        return found is not None and stat.S_ISDIR(found.st_mode)


def split(path: str) -> tuple[str, str]:
    """Parent and last part of a path, however many slashes it has."""
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent, name
