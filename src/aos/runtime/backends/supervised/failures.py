"""What an OCI runtime says when it refuses, in the words of the Runtime protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aos.errors import AosError, FailedPrecondition, Internal, InvalidArgument
from aos.runtime.backends.supervised.entrypoint import not_executable, not_found

if TYPE_CHECKING:
    from aos.content.tree import Tree
    from aos.ids import SandboxId
    from aos.runtime.spec import Limits

__all__ = ["failure", "refused_limits", "too_little_memory"]

# runc: libcontainer ("executable file not found in $PATH", "no such file or directory", "permission denied",
# "is a directory", "exec format error"); crun: src/libcrun/linux.c ("executable file `x` not found in $PATH").
_MESSAGE = re.compile(r'level=(?:error|fatal) msg="((?:[^"\\]|\\.)*)"')
"""runc's log format, in which it writes what it has to say."""
_MOUNT = re.compile(r'error mounting "([^"]*)" to rootfs at "([^"]*)": (.*)')
# runsc: runsc/boot ("failed to load x: no such file", "error finding executable \"x\" in PATH").
_ABOUT_COMMAND = ("exec", "failed to load")
_NOT_FOUND = ("error finding executable", "not found in $PATH", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")


def failure(said: str, command: str, tree: Tree) -> AosError:
    """The error for a runtime's last words; `command` is what it was to run, empty where that is no likely cause."""
    match = _MESSAGE.search(said)
    said = match[1].replace('\\"', '"') if match else said.strip()
    mount = _MOUNT.search(said)
    if mount is not None:
        return FailedPrecondition(
            f"cannot mount {mount[1]} at {mount[2]}: {mount[3].rpartition(': ')[2]}",
            code="mount-failed",
            hint="a directory is mounted on a directory, a file on a file; /proc, /sys and /dev are the sandbox's own",
        )
    about_command = command and command in said and any(words in said for words in _ABOUT_COMMAND)
    if about_command and any(words in said for words in _NOT_FOUND):
        return not_found(command, tree)
    if about_command and any(words in said for words in _NOT_EXECUTABLE):
        return not_executable(command, said.rpartition(": ")[2])
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


def too_little_memory(limits: Limits) -> AosError:
    return InvalidArgument(
        f"the limit of {limits.memory} bytes of memory is too low to start anything",
        code="limit-refused",
        hint="runc needs some 10 MB for a moment, gVisor 20 MB and more all the time",
    )
