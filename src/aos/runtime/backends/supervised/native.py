"""System calls that Python has no names for: mounts by descriptor, user namespaces. Each raises OSError.

Sources: open_tree(2), move_mount(2), mount_setattr(2), openat2(2), clone(2); include/uapi/linux/{mount,openat2,sched}.h.
The numbers are the same on every architecture but Alpha.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.protocol import IdMap

__all__ = [
    "attach",
    "clone_tree",
    "libc",
    "map_ids",
    "namespaces",
    "open_canonical",
    "open_inside",
    "restrict",
]

_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 4, 0x40
_RESOLVE_NO_SYMLINKS, _RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x04, 0x02, 0x08
_MS_PRIVATE = 1 << 18
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_IDMAP = 1, 2, 4, 0x100000
_CLONE_VM, _CLONE_NEWUSER, _CLONE_NEWNET = 0x100, 0x10000000, 0x40000000
_STACK = 64 << 10
_ATTEMPTS, _NETWORK_USECONDS = 8, 250_000
"""How long the helper of a network namespace lives, in which it must have been looked at: it holds what its maker had
open, so that one who is killed in between is missed no longer than this. On a busy host that may take another attempt."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


@functools.cache
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def open_canonical(path: Path) -> int:
    """An O_PATH descriptor of a path with no link anywhere in it; ELOOP where there is one."""
    return _open_without_links(_AT_FDCWD, os.fsencode(path), 0)


def open_inside(directory: int, path: str) -> int:
    """As `open_canonical`, of a path that stays below an open directory."""
    return _open_without_links(directory, os.fsencode(path), _RESOLVE_BENEATH)


def _open_without_links(directory: int, path: bytes, resolve: int) -> int:
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS | resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return _call(_OPENAT2, directory, path, ctypes.byref(how), size)


def clone_tree(descriptor: int) -> int:
    """A copy of what is mounted at an open file or directory and below, attached nowhere yet."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    return _call(_OPEN_TREE, descriptor, b"", ctypes.c_uint(flags))


def map_ids(tree: int, namespace: int) -> None:
    """Show the files of a tree that is attached nowhere with their ids mapped as in a user namespace: what 0 owns
    on the disk, the namespace's 0 owns in the tree. EINVAL where the file system cannot."""
    _set(tree, _Attributes(_MOUNT_ATTR_IDMAP, 0, 0, namespace))


def restrict(tree: int, *, read_only: bool) -> None:
    """No set-user-id program and no device works in there, from the first moment; and what is mounted in there is
    mounted nowhere else."""
    flags = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | (_MOUNT_ATTR_RDONLY if read_only else 0)
    _set(tree, _Attributes(flags, 0, _MS_PRIVATE, 0))


def _set(tree: int, attributes: _Attributes) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, ctypes.byref(attributes), size)


def attach(tree: int, target: Path | int) -> None:
    """`target`: a path of ours, or the descriptor of a place that others may move."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH
    at, path = (target, b"") if isinstance(target, int) else (_AT_FDCWD, os.fsencode(target))
    if isinstance(target, int):
        flags |= _MOVE_MOUNT_T_EMPTY_PATH
    _call(_MOVE_MOUNT, tree, b"", at, path, ctypes.c_uint(flags))


def namespaces(ids: IdMap, *, network: bool) -> tuple[int, int | None]:
    """Descriptors of a new user namespace with this map and, if it shall own one, of a new network namespace.

    Only a process of one thread may make one, so a helper does: it shares our memory, as a child of vfork does, and runs
    nothing but usleep(3) of the C library on a stack of its own. A user namespace can be taken from one that has ended,
    a network namespace cannot.
    """
    attempts = _ATTEMPTS
    while True:
        try:
            return _namespaces(ids, network=network)
        except FileNotFoundError:  # the helper has ended before we could look
            attempts -= 1
            if not attempts:
                raise


def _namespaces(ids: IdMap, *, network: bool) -> tuple[int, int | None]:
    stack = ctypes.create_string_buffer(_STACK)
    pid = _helper(stack, _CLONE_NEWUSER | (_CLONE_NEWNET if network else 0), _NETWORK_USECONDS * network)
    try:
        owned = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC) if network else None
        try:
            for name, extents in (("uid_map", ids.uids), ("gid_map", ids.gids)):
                text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in extents)
                with open(f"/proc/{pid}/{name}", "w") as file:  # noqa: PTH123 - on the start path
                    file.write(text)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC), owned
        except BaseException:
            if owned is not None:
                os.close(owned)
            raise
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _helper(stack: ctypes.Array[ctypes.c_char], namespaces: int, useconds: int) -> int:
    top = (ctypes.addressof(stack) + _STACK) & ~15
    clone = libc().clone
    clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    sleep = ctypes.cast(libc().usleep, ctypes.c_void_p)
    pid = int(clone(sleep, top, _CLONE_VM | namespaces | signal.SIGCHLD, useconds))
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return pid
