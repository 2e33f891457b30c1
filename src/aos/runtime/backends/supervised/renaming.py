"""Another host name for a sandbox that waits for its start: in its UTS namespace, and in the /etc/hosts that is ours."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from typing import TYPE_CHECKING

from aos.errors import Internal
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.launch import in_own_thread
from aos.runtime.backends.supervised.native import libc

if TYPE_CHECKING:
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.backends.supervised.host import Host

__all__ = ["rename"]

_CLONE_NEWUTS = 0x04000000


async def rename(host: Host, id: SandboxId, hostname: str) -> None:
    state, pid = host.state(id), host.init(id)
    if pid is None or not state.can_start():
        raise wrong_state(id, state, "rename")
    try:
        before = await in_own_thread(lambda: _set(pid, hostname))
        _replace(host.sandboxes / id / "hosts", before, hostname)
    except OSError as error:
        raise Internal(
            f"sandbox {id} cannot be called {hostname!r}: {error.strerror}", code="runtime-failed", sandbox=id
        ) from error


def _set(pid: int, hostname: str) -> str:
    """The name before. A thread has a namespace of its own, and this one ends with it."""
    descriptor = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc().setns(descriptor, _CLONE_NEWUTS) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
    before = socket.gethostname()
    socket.sethostname(hostname)
    return before


def _replace(hosts: Path, before: str, after: str) -> None:
    """In place, for the file itself is mounted in the sandbox. The name is the last word of its line."""
    with hosts.open("r+", encoding="utf-8") as file:
        text = re.sub(rf"(?m)(?<=[ \t]){re.escape(before)}$", lambda _: after, file.read())
        file.seek(0)
        file.write(text)
        file.truncate()  # not to nothing before: ext4 writes a file at once that was emptied and filled again
