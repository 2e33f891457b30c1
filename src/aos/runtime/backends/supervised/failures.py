"""What an OCI runtime says when it refuses, in the words of the Runtime protocol."""

from __future__ import annotations

import difflib
import re
import stat
from typing import TYPE_CHECKING

from aos.content.tree import resolve
from aos.errors import AosError, FailedPrecondition, Internal, InvalidArgument
from aos.runtime.bundle import DEFAULT_PATH

if TYPE_CHECKING:
    from aos.content.tree import Tree
    from aos.ids import SandboxId
    from aos.runtime.spec import ProcessSpec

__all__ = ["failure", "refused_limits"]

# runc: libcontainer ("executable file not found in $PATH", "no such file or directory", "permission denied",
# "is a directory", "exec format error"); crun: src/libcrun/linux.c ("executable file `x` not found in $PATH").
_MESSAGE = re.compile(r'level=(?:error|fatal) msg="((?:[^"\\]|\\.)*)"')
"""runc's log format, in which it writes what it has to say."""
_MOUNT = re.compile(r'error mounting "([^"]*)" to rootfs at "([^"]*)": (.*)')
_NOT_FOUND = ("not found in $PATH", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")


def failure(said: str, process: ProcessSpec | None, tree: Tree) -> AosError:
    """The error for a runtime's last words; `process` is what it was to run, where that is the likely cause."""
    match = _MESSAGE.search(said)
    said = match[1].replace('\\"', '"') if match else said.strip()
    command = process.args[0] if process is not None and process.args else ""
    mount = _MOUNT.search(said)
    if mount is not None:
        return FailedPrecondition(
            f"cannot mount {mount[1]} at {mount[2]}: {mount[3].rpartition(': ')[2]}",
            code="mount-failed",
            hint="a directory is mounted on a directory, a file on a file; /proc, /sys and /dev are the sandbox's own",
        )
    about_command = "exec" in said and (not command or command in said)
    if about_command and any(words in said for words in _NOT_FOUND):
        near = _near(command, tree)
        return FailedPrecondition(
            f"the image has no {command!r} to run" if command else f"the command was not found: {said}",
            code="entrypoint-not-found",
            hint=f"there is: {', '.join(near)}" if near else "check the command and the image's PATH",
            exit_status=127,
            command=command,
        )
    if about_command and any(words in said for words in _NOT_EXECUTABLE):
        return FailedPrecondition(
            f"{command or 'the command'} cannot be executed: {said.rpartition(': ')[2]}",
            code="entrypoint-not-executable",
            hint="it needs the executable bit, and the format of this machine or a '#!' line",
            exit_status=126,
            command=command,
        )
    return Internal(
        f"the OCI runtime failed: {said or 'it gave no reason'}",
        code="runtime-failed",
        hint="`aos doctor` checks the host",
    )


def refused_limits(error: OSError, id: SandboxId) -> AosError:
    """The error for a cgroup file that did not take a limit."""
    return InvalidArgument(
        f"the kernel refuses these limits: {error.strerror}",
        code="limit-refused",
        hint="a memory limit cannot be below what is in use, and no limit far beyond what the host has",
        sandbox=id,
    )


def _near(command: str, tree: Tree) -> list[str]:
    """Executables of the image with a similar name."""
    name = command.rpartition("/")[2]
    names: set[str] = set()
    for directory in DEFAULT_PATH.split(":"):
        path = resolve(tree, directory, follow_last=True)
        status = tree.lstat(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            names.update(tree.names(path))
    return difflib.get_close_matches(name, sorted(names), n=3)
