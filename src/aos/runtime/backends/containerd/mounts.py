"""What is mounted on the host while containerd creates a sandbox: binds, files in memory, other layers to look at.

The shim binds them into the sandbox from where they are, so they must be in the host's mount namespace for that moment.
Then they are detached: the sandbox has them, and the host does not see them any more.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.errors import FailedPrecondition
from aos.runtime.backends.supervised.native import libc

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["directories", "mount_layers", "unmount_below"]

_MS_RDONLY, _MS_BIND = 1, 4096
_MNT_DETACH = 2


def mount_layers(target: Path, mounts: Sequence[Any]) -> None:
    """The mounts of a snapshot (containerd.types.Mount), read-only."""
    for mount in mounts:
        if mount.type == "bind":
            done = _mount(mount.source, target, "", _MS_BIND, "")
        else:
            options = ",".join(option for option in mount.options if option != "ro")
            done = _mount(mount.source, target, mount.type, _MS_RDONLY, options)
        if not done:
            raise _refused(f"mount layers at {target}")


def directories(mounts: Sequence[Any]) -> tuple[Path, ...] | None:
    """What a snapshot's mounts lay on each other, base first; None when that is not in directories of this host."""
    if len(mounts) != 1:
        return None
    [mount] = mounts
    if mount.type == "bind":
        return (Path(mount.source),)
    if mount.type != "overlay":
        return None
    options = dict(option.partition("=")[::2] for option in mount.options)
    lowers = [Path(lower) for lower in reversed(options["lowerdir"].split(":"))]
    return (*lowers, *([Path(options["upperdir"])] if "upperdir" in options else []))


def unmount_below(directory: Path) -> None:
    """Detach whatever is mounted below a sandbox's directory; FailedPrecondition `mount-failed` where something stays."""
    for place in reversed(_mounted_below(directory)):
        if libc().umount2(os.fsencode(place), _MNT_DETACH) != 0 and place in _mounted_below(directory):
            raise _refused(f"unmount {place}")


def _mounted_below(directory: Path) -> list[str]:
    prefix = f"{directory}/"
    with open("/proc/self/mountinfo") as file:  # noqa: PTH123 - on the way of every deletion
        return [place for line in file if (place := _unescape(line.split(" ")[4])).startswith(prefix)]


def _unescape(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> bool:
    words = (os.fsencode(source), os.fsencode(target), os.fsencode(kind) or None)
    return bool(libc().mount(*words, ctypes.c_ulong(flags), os.fsencode(options) or None) == 0)


def _refused(what: str) -> FailedPrecondition:
    number = ctypes.get_errno()
    return FailedPrecondition(
        f"cannot {what}: {os.strerror(number)}",
        code="mount-failed",
        hint="`aos doctor` says what this host lacks",
        errno=number,
    )
