"""What is mounted for one sandbox alone: its root overlay, files in memory, other layers to look at.

All of it lives in a mount namespace that conmon is started in. So the host never sees it, and when the last
process of the sandbox is gone, so is everything here, whatever was killed in between.
"""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.errors import AosError, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["MemoryFile", "Mounts", "Overlay", "separate_directory"]

_CLONE_NEWNS, _CLONE_FS = 0x00020000, 0x00000200
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REC, _MS_SLAVE = 0x4000, 1 << 19
_DATA_LIMIT = 4095
"""Bytes: mount(2) copies one page of options."""
_OVERLAY_OPTIONS = "redirect_dir=off,index=off,metacopy=off"
"""What a layer can hold is all that the upper directory may contain."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Layers at `target`, base first, all children of `lower_directory`; read-only without an upper directory."""

    lower_directory: Path
    lowers: Sequence[Path]
    target: Path
    upper: Path | None = None
    work: Path | None = None


@dataclass(frozen=True, slots=True)
class MemoryFile:
    data: bytes
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Mounts:
    overlays: tuple[Overlay, ...]
    files: tuple[MemoryFile, ...]
    directory: Path
    """Where the files go: `<directory>/0`, `<directory>/1`, …"""

    def mount_privately(self) -> None:
        """Leave the host's mount namespace for one that holds all this too: the calling thread's, for good."""
        libc = _libc()
        if libc.unshare(_CLONE_NEWNS) != 0:
            raise _refused("make a mount namespace")
        if libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None) != 0:
            raise _refused("make the mount namespace private")
        for overlay in self.overlays:
            _mount_overlay(overlay)
        if self.files:
            _mount_files(self.directory, self.files)


def separate_directory() -> None:
    """Give the calling thread a working directory of its own, for good."""
    if _libc().unshare(_CLONE_FS) != 0:
        raise _refused("have a working directory of its own")


def _mount_overlay(overlay: Overlay) -> None:
    os.chdir(overlay.lower_directory)  # this thread's own: unshare(CLONE_NEWNS) implies CLONE_FS
    # The kernel takes no directory twice. Of equal layers the topmost hides all that the others hold.
    lowers = ":".join(dict.fromkeys(path.name for path in reversed(overlay.lowers)))
    if overlay.upper is not None and overlay.work is not None:
        options = f"lowerdir={lowers},upperdir={_escape(overlay.upper)},workdir={_escape(overlay.work)},"
    else:  # an overlay needs two directories: the empty mount point is the other
        options = f"lowerdir={lowers}:{_escape(overlay.target)},"
    options += _OVERLAY_OPTIONS if os.geteuid() == 0 else _OVERLAY_OPTIONS + ",userxattr"
    if len(os.fsencode(options)) > _DATA_LIMIT:
        raise FailedPrecondition(
            f"{len(overlay.lowers)} layers are more than one overlay mount takes",
            code="too-many-layers",
            hint="build the package with fewer steps",
        )
    flags = ctypes.c_ulong(0 if overlay.upper is not None else _MS_RDONLY)
    if _libc().mount(b"overlay", os.fsencode(overlay.target), b"overlay", flags, os.fsencode(options)) != 0:
        raise _refused(f"mount layers at {overlay.target}")


def _mount_files(directory: Path, files: Sequence[MemoryFile]) -> None:
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    for options in (b"mode=0700,noswap", b"mode=0700"):  # noswap: since Linux 6.4
        if _libc().mount(b"tmpfs", os.fsencode(directory), b"tmpfs", flags, options) == 0:
            break
    else:
        raise _refused(f"mount a tmpfs at {directory}")
    for number, file in enumerate(files):
        descriptor = os.open(
            directory / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as writing:
            writing.write(file.data)
            os.fchown(descriptor, file.uid, file.gid)
            os.fchmod(descriptor, file.mode)


def _escape(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _refused(what: str) -> AosError:
    number = ctypes.get_errno()
    return FailedPrecondition(
        f"cannot {what}: {os.strerror(number)}",
        code="mount-failed",
        hint="`aos doctor` says what this host lacks",
        errno=number,
    )
