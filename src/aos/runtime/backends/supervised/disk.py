"""A writable layer of a given size: a file system of its own in a sparse file, or in memory where none can be made.

The file is an ext4 on a loop device that goes away with its last mount (LO_FLAGS_AUTOCLEAR), and that mount is in the
sandbox's own mount namespace: so nothing stays when anything is killed. It bounds files as well as bytes (ext4 makes
one inode for 16 KiB). Sources: loop(4), include/uapi/linux/loop.h, mke2fs(8).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition, InvalidArgument
from aos.runtime.backends.supervised.launch import run_tool, tool_environment
from aos.runtime.backends.supervised.native import libc

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Disk", "make_disk"]

_SMALLEST = 2 << 20
"""Bytes: below, mkfs has no room for its own tables."""
_MKFS_SECONDS = 60.0
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_ATTEMPTS = 50
_OPTIONS = ("-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0")
"""No journal: after a power failure the sandbox is gone anyway."""


class _Info(ctypes.Structure):
    """struct loop_info64."""

    _fields_ = (
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("size_limit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_uint8 * 64),
        ("crypt_name", ctypes.c_uint8 * 64),
        ("encrypt_key", ctypes.c_uint8 * 32),
        ("init", ctypes.c_uint64 * 2),
    )


class _Config(ctypes.Structure):
    """struct loop_config."""

    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _Info),
        ("reserved", ctypes.c_uint64 * 8),
    )


@dataclass(frozen=True, slots=True)
class Disk:
    directory: Path
    """Where it is mounted, and upper and work directories are made."""
    size: int
    file: Path | None
    """None: in memory, which counts as the sandbox's."""

    def mount(self) -> None:
        """In the calling thread's mount namespace. FailedPrecondition `disk-failed`."""
        try:
            if self.file is None:
                _mount("tmpfs", self.directory, "tmpfs", f"mode=0700,size={self.size}")
                return
            loop = _loop(self.file)
            try:
                _mount(f"/dev/loop{loop[0]}", self.directory, "ext4", "")
            finally:
                os.close(loop[1])
        except OSError as error:
            raise _failed(error.strerror or str(error)) from error


async def make_disk(directory: Path, size: int) -> Disk:
    """InvalidArgument `limit-refused` when it is too small, FailedPrecondition `disk-failed`."""
    if size < _SMALLEST:
        raise InvalidArgument(
            f"a disk of {size} bytes is too small",
            code="limit-refused",
            hint="2m is the least",
        )
    mounted, mkfs = (
        directory / "disk",
        shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"),
    )
    mounted.mkdir(mode=0o700)
    if mkfs is None or not os.access("/dev/loop-control", os.W_OK):
        return Disk(mounted, size, None)
    file = directory / "disk.ext4"
    with file.open("xb") as made:
        made.truncate(size)
    code, said = await run_tool([mkfs, *_OPTIONS, str(file)], tool_environment(), seconds=_MKFS_SECONDS)
    if code != 0:
        raise _failed(said)
    return Disk(mounted, size, file)


def _loop(file: Path) -> tuple[int, int]:
    """(number, open descriptor) of a loop device over the file."""
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            config = _Config(fd=backing)
            config.info.flags = _LO_FLAGS_AUTOCLEAR
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was quicker
                    raise
                continue
            return number, device
        raise OSError(errno.EBUSY, "no loop device is free")
    finally:
        os.close(control)
        os.close(backing)


def _mount(source: str, target: Path, kind: str, options: str) -> None:
    data = options.encode() or None
    if libc().mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(0), data) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _failed(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"no disk of its own can be made for the sandbox: {why}",
        code="disk-failed",
        hint="`mkfs.ext4` (e2fsprogs) and loop devices are needed; run without --disk, or free some space",
    )
