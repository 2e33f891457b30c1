"""What is mounted for one sandbox alone: its root overlay, files in memory, other layers to look at.

All of it lives in a mount namespace that conmon is started in. So the host never sees it, and when the last
process of the sandbox is gone, so is everything here, whatever was killed in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import AosError, FailedPrecondition
from aos.rootless.user import in_user_namespace
from aos.runtime.backends.supervised.native import (
    attach,
    clone_tree,
    libc,
    map_ids,
    restrict,
)
from aos.runtime.backends.supervised.nested import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aos.runtime.backends.supervised.disk import Disk
    from aos.runtime.backends.supervised.nested import Nested

__all__ = [
    "STAGE",
    "USER_NAMESPACE",
    "Bind",
    "MemoryFile",
    "Mounts",
    "Overlay",
    "Scratch",
    "separate_directory",
    "separate_mounts",
]

_CLONE_NEWNS, _CLONE_FS = 0x00020000, 0x00000200
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 1 << 19
_DATA_LIMIT = 4095
"""Bytes: mount(2) copies one page of options."""
_OVERLAY_OPTIONS = "redirect_dir=off,index=off,metacopy=off"
_USER_OPTIONS = "userxattr,index=off,metacopy=off"
"""What a layer can hold is all that the upper directory may contain. With `userxattr` there are no redirects."""


STAGE = Path("/run/aos-sandbox")
"""Where all this is mounted for a sandbox with user ids of its own: its root user must be able to walk there, which it
could not do in a directory of ours. An empty directory on the host; what is mounted there, one sandbox alone sees."""
USER_NAMESPACE = STAGE / "user"
"""Where the OCI runtime finds the sandbox's user namespace."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Layers at `target`, base first, all children of `lower_directory`; read-only without an upper directory."""

    lower_directory: Path
    lowers: Sequence[Path]
    target: Path
    upper: Path | None = None
    work: Path | None = None
    root: tuple[int, int, int] | None = None
    """Owner, group and mode of the upper directory, which is made together with `work`; None: both exist."""


@dataclass(frozen=True, slots=True)
class MemoryFile:
    data: bytes
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host at `target`, and what is mounted below it."""

    source: Path
    target: Path
    read_only: bool = False
    follow: bool = True
    """Whether links in `source` are followed; else they are refused."""
    mapped: bool = True
    """Whether its files' ids are mapped as the layers' are; the kernel's own file systems cannot."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """An empty file system in memory."""

    target: Path
    size: int | None
    """Bytes; None: half of memory."""
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Mounts:
    directory: Path
    """What all targets are in: the sandbox's own directory, or STAGE."""
    overlays: tuple[Overlay, ...]
    binds: Sequence[Bind | Scratch] = ()
    files: Sequence[MemoryFile] = ()
    """They go to `<directory>/memory/0`, `<directory>/memory/1`, …"""
    nested: Sequence[Nested] = ()
    """In this order, when all else is mounted."""
    user_namespace: int | None = None
    """A descriptor: as whose ids layers and binds are seen. None: the host's."""
    disk: Disk | None = None
    """What holds the first overlay's upper directory, when that is not the host's file system."""
    sysfs: Path | None = None
    """Where a sysfs goes, which shows the links of the network namespace that the caller is in."""

    def mount(self) -> None:
        """In the mount namespace of the calling thread."""
        if self.directory == STAGE:
            _mount(STAGE, "tmpfs", "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0711,size=1m")
            USER_NAMESPACE.touch()
            _mount(USER_NAMESPACE, f"/proc/self/fd/{self.user_namespace}", None, _MS_BIND)
        if self.disk is not None:
            self.disk.mount()
        if self.sysfs is not None:
            self.sysfs.mkdir()
            _mount(self.sysfs, "sysfs", "sysfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        for overlay in self.overlays:
            self._mount_overlay(overlay)
        for bind in self.binds:
            self._mount_bind(bind)
        if self.files:
            _mount_files(self.directory / "memory", self.files)
        for nested in self.nested:
            with _explained(Path(nested.made_in or nested.holder, nested.made_at)):
                nested.mount()

    def _mount_overlay(self, overlay: Overlay) -> None:
        if overlay.root is not None and overlay.upper is not None and overlay.work is not None:
            overlay.work.mkdir()
            overlay.upper.mkdir()
            os.chown(overlay.upper, overlay.root[0], overlay.root[1])
            overlay.upper.chmod(overlay.root[2])
        overlay.target.mkdir(exist_ok=True)
        lowers = overlay.lower_directory
        if self.user_namespace is not None:
            lowers = self.directory / "layers"
            if not lowers.exists():
                lowers.mkdir(mode=0o700)
                self._place(Bind(overlay.lower_directory, lowers, read_only=True))
        os.chdir(lowers)  # this thread's own: unshare(CLONE_NEWNS) implies CLONE_FS
        _overlay(overlay)

    def _mount_bind(self, bind: Bind | Scratch) -> None:
        if not bind.target.parent.exists():
            bind.target.parent.mkdir()
            bind.target.parent.chmod(0o711)  # whatever the umask: the sandbox's root user walks through
        if isinstance(bind, Scratch):
            bind.target.mkdir()
            options = f"mode=1777,uid={bind.uid},gid={bind.gid}"
            options += f",size={bind.size}" if bind.size is not None else ""
            _mount(bind.target, "tmpfs", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
            return
        with _explained(bind.source):
            _make_place(bind.target, bind.source)
            self._place(bind)

    def _place(self, bind: Bind) -> None:
        opened = open_source(bind.source, follow=bind.follow)
        try:
            tree = clone_tree(opened)
        finally:
            os.close(opened)
        try:
            if self.user_namespace is not None and bind.mapped:
                map_ids(tree, self.user_namespace)
            restrict(tree, read_only=bind.read_only)
            attach(tree, bind.target)
        finally:
            os.close(tree)


@contextlib.contextmanager
def _explained(what: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            why = "a symbolic link stands where a path was that may be mounted"
        else:
            why = error.strerror or str(error)
        raise FailedPrecondition(
            f"cannot mount {what}: {why}",
            code="mount-failed",
            hint="the source must be an existing file or directory of this host, and no link may be on the way",
            source=str(what),
        ) from error


def _make_place(target: Path, source: Path) -> None:
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()


def separate_mounts() -> None:
    """Leave the host's mount namespace for one of its own: the calling thread, for good."""
    if libc().unshare(_CLONE_NEWNS) != 0:
        raise _refused("make a mount namespace")
    _mount("/", None, None, _MS_REC | _MS_SLAVE)


def separate_directory() -> None:
    """Give the calling thread a working directory of its own, for good."""
    if libc().unshare(_CLONE_FS) != 0:
        raise _refused("have a working directory of its own")


def _overlay(overlay: Overlay) -> None:
    """The working directory holds the layers."""
    # The kernel takes no directory twice. Of equal layers the topmost hides all that the others hold.
    lowers = ":".join(dict.fromkeys(path.name for path in reversed(overlay.lowers)))
    if overlay.upper is not None and overlay.work is not None:
        options = f"lowerdir={lowers},upperdir={_escape(overlay.upper)},workdir={_escape(overlay.work)},"
    else:  # an overlay needs two directories: the empty mount point is the other
        options = f"lowerdir={lowers}:{_escape(overlay.target)},"
    options += _USER_OPTIONS if in_user_namespace() else _OVERLAY_OPTIONS
    if len(os.fsencode(options)) > _DATA_LIMIT:
        raise FailedPrecondition(
            f"{len(overlay.lowers)} layers are more than one overlay mount takes",
            code="too-many-layers",
            hint="build the package with fewer steps",
        )
    _mount(overlay.target, "overlay", "overlay", 0 if overlay.upper is not None else _MS_RDONLY, options)


def _mount_files(directory: Path, files: Sequence[MemoryFile]) -> None:
    directory.mkdir(exist_ok=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    try:
        _mount(directory, "tmpfs", "tmpfs", flags, "mode=0711,noswap")  # noswap: since Linux 6.4
    except FailedPrecondition:
        _mount(directory, "tmpfs", "tmpfs", flags, "mode=0711")
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


def _mount(target: Path | str, source: str | None, kind: str | None, flags: int, options: str = "") -> None:
    def text(word: str | None) -> bytes | None:
        return None if word is None else os.fsencode(word)

    data = text(options or None)
    if libc().mount(text(source), os.fsencode(target), text(kind), ctypes.c_ulong(flags), data) != 0:
        raise _refused(f"mount {kind or 'propagation'} at {target}")


def _refused(what: str) -> AosError:
    number = ctypes.get_errno()
    return FailedPrecondition(
        f"cannot {what}: {os.strerror(number)}",
        code="mount-failed",
        hint="`aos doctor` says what this host lacks",
        errno=number,
    )
