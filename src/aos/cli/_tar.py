"""Trees as tar streams: packed from a place, unpacked into one. Contents are hostile on both sides."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from typing import TYPE_CHECKING, Any

from aos.cli._places import split
from aos.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from typing import IO

    from aos.cli._places import Place

__all__ = ["Owner", "pack", "unpack"]

_BLOCK = 1 << 20
_SETID = 0o6000

Owner = tuple[int, int]


def pack(place: Place, path: str, name: str, out: IO[bytes], *, follow: bool) -> None:
    """Write what is at `path`, named `name`, as a tar stream; `follow`: when it is a link, what that leads to."""
    flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as tar:
        descriptor = place.open(path, flags)
        try:
            _Packing(tar, place.first_id).add(descriptor, name)
        finally:
            os.close(descriptor)


class _Packing:
    def __init__(self, tar: tarfile.TarFile, first_id: int) -> None:
        self._tar = tar
        self._first_id = first_id
        self._seen: dict[tuple[int, int], str] = {}

    def add(self, entry: int, name: str) -> None:
        """`entry`: an O_PATH descriptor; what it stands for cannot be changed for something else any more."""
        status = os.fstat(entry)
        member = _member(status, name)
        member.uid, member.gid = max(0, member.uid - self._first_id), max(0, member.gid - self._first_id)
        if stat.S_ISDIR(status.st_mode):
            self._tar.addfile(member)
            self._add_children(entry, name)
        elif stat.S_ISLNK(status.st_mode):
            member.linkname = os.readlink("", dir_fd=entry)
            self._tar.addfile(member)
        elif stat.S_ISREG(status.st_mode):
            first = self._seen.setdefault((status.st_dev, status.st_ino), name)
            if status.st_nlink > 1 and first != name:
                member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
                self._tar.addfile(member)
                return
            # The same file, not its name once more.
            with open(f"/proc/self/fd/{entry}", "rb", buffering=0) as file:  # noqa: PTH123
                self._tar.addfile(member, _Exactly(file, member.size))
        elif stat.S_ISFIFO(status.st_mode):
            self._tar.addfile(member)
        elif not stat.S_ISSOCK(status.st_mode):
            raise FailedPrecondition(
                f"{name} is a device", code="cp-refused", hint="devices are not copied; leave it out"
            )

    def _add_children(self, entry: int, name: str) -> None:
        directory = os.open(f"/proc/self/fd/{entry}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for child in sorted(os.listdir(directory)):  # noqa: PTH208 - a descriptor
                try:
                    opened = os.open(child, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                except FileNotFoundError:
                    continue  # removed meanwhile
                try:
                    self.add(opened, f"{name}/{child}")
                finally:
                    os.close(opened)
        finally:
            os.close(directory)


def _member(status: os.stat_result, name: str) -> tarfile.TarInfo:
    kinds = {
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    member = tarfile.TarInfo(name)
    member.type = kinds.get(stat.S_IFMT(status.st_mode), tarfile.REGTYPE)
    member.mode = stat.S_IMODE(status.st_mode)
    member.uid, member.gid = status.st_uid, status.st_gid
    member.mtime = status.st_mtime  # PAX keeps the fraction
    member.size = status.st_size if member.isreg() else 0
    return member


class _Exactly:
    """A file of just so many bytes, whatever is done to it while it is read: cut, or filled with zeros."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, count: int = -1, /) -> bytes:
        count = self._left if count < 0 else min(count, self._left)
        self._left -= count
        data = b""
        while len(data) < count and (more := self._file.read(count - len(data))):
            data += more
        return data.ljust(count, b"\0")


def unpack(
    source: IO[bytes], place: Place, base: str, *, rename: str | None, owner: Owner | None, set_id: bool
) -> None:
    """Put a tar stream below `base`. `rename`: the name of its one top entry; `owner`: of everything, None: as the
    stream says; `set_id`: keep set-user-ID and set-group-ID."""
    later: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|*", bufsize=_BLOCK) as tar:
            for member in tar:
                path = _target(member.name, rename)
                if path is None:
                    continue
                _Unpacking(place, base, owner, set_id, rename).put(tar, member, path)
                if member.isdir():
                    later.append((path, member))
    except tarfile.TarError as error:
        raise InvalidArgument(
            f"not a tar archive, or a damaged one: {error}", code="cp-archive-invalid"
        ) from error
    for path, member in reversed(later):
        _Unpacking(place, base, owner, set_id, rename).finish_directory(member, path)


class _Unpacking:
    def __init__(
        self, place: Place, base: str, owner: Owner | None, set_id: bool, rename: str | None
    ) -> None:
        self._place, self._base, self._owner, self._set_id = place, base, owner, set_id
        self._rename = rename

    def put(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        parent_path, name = split(f"{self._base}/{path}")
        if not name:
            return  # the base itself
        parent = self._place.directory(parent_path, make=True)
        try:
            if member.isdir():
                self._make_directory(parent, name, f"{parent_path}/{name}")
                return
            present = _kind(parent, name)
            if present == stat.S_IFDIR:
                raise FailedPrecondition(
                    f"cannot put {member.name} in the place of the directory {path}",
                    code="cp-target-invalid",
                )
            # Under another name first: whoever looks sees the old or the new one, whole.
            temporary = f".aos-cp-{os.urandom(6).hex()}"
            try:
                self._make(tar, member, parent, temporary)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                _remove(parent, temporary)
                raise
        finally:
            os.close(parent)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if member.isreg():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
            with os.fdopen(descriptor, "wb") as file:
                content: Any = tar.extractfile(member)
                while data := content.read(_BLOCK):
                    file.write(data)
                file.flush()
                self._own(member, descriptor)
                os.fchmod(descriptor, self._mode(member))
                os.utime(descriptor, (member.mtime, member.mtime))
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            uid, gid = self._owner_of(member)
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        elif member.islnk():
            target = _target(member.linkname, self._rename)
            linked = self._place.open(f"{self._base}/{target}", os.O_PATH | os.O_NOFOLLOW)
            try:
                os.link(f"/proc/self/fd/{linked}", name, dst_dir_fd=parent, follow_symlinks=True)
            finally:
                os.close(linked)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                uid, gid = self._owner_of(member)
                os.chown(f"/proc/self/fd/{descriptor}", uid, gid)
                os.chmod(f"/proc/self/fd/{descriptor}", self._mode(member))  # noqa: PTH101
            finally:
                os.close(descriptor)
        else:
            raise FailedPrecondition(
                f"{member.name} is neither a file, a directory nor a link",
                code="cp-refused",
                hint="devices are not copied; leave it out",
            )

    def _make_directory(self, parent: int, name: str, path: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            # A link to a directory serves as one, where links cannot lead out.
            os.close(self._place.directory(path))

    def finish_directory(self, member: tarfile.TarInfo, path: str) -> None:
        """Owner, mode and time, once nothing more is written into it."""
        try:
            directory = self._place.open(f"{self._base}/{path}", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return  # somebody took it away
        try:
            self._own(member, directory)
            os.fchmod(directory, self._mode(member))
            os.utime(directory, (member.mtime, member.mtime))
        finally:
            os.close(directory)

    def _own(self, member: tarfile.TarInfo, descriptor: int) -> None:
        uid, gid = self._owner_of(member)
        os.fchown(descriptor, uid, gid)

    def _owner_of(self, member: tarfile.TarInfo) -> Owner:
        first = self._place.first_id
        return self._owner or (member.uid + first, member.gid + first)

    def _mode(self, member: tarfile.TarInfo) -> int:
        return member.mode & (0o7777 if self._set_id else 0o7777 & ~_SETID)


def _target(name: str, rename: str | None) -> str | None:
    """The path of a member below the base; None for the base itself. InvalidArgument for one that leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(
            f"the archive holds the path {name!r:.200}, which leads out of it", code="cp-archive-invalid"
        )
    if rename is not None and parts:
        parts[0] = rename
    return "/".join(part for part in parts if part) or None


def _kind(parent: int, name: str) -> int:
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0


def _remove(parent: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=parent)
