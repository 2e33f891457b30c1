"""Whether the root file system can run a command, told before anything is made: runtimes say it late, each in words of
its own, and of a program for another processor some say nothing at all.

Sources: execvp(3) for the search, elf(5) for the header, execve(2) for interpreter scripts.
"""

from __future__ import annotations

import difflib
import os
import stat
from typing import TYPE_CHECKING

from aos.content.tree import resolve
from aos.errors import AosError, FailedPrecondition
from aos.runtime.bundle import DEFAULT_PATH

if TYPE_CHECKING:
    from collections.abc import Collection

    from aos.content.tree import Tree
    from aos.runtime.spec import ProcessSpec

__all__ = ["check_command", "near_names", "not_executable", "not_found"]

_HEAD = 256
"""Bytes: what Linux reads to find out what a file is (BINPRM_BUF_SIZE)."""
_MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
}
_MACHINES[243] = "riscv64"
_RUNS = {"x86_64": {"x86_64", "i386"}, "aarch64": {"aarch64", "arm"}, "ppc64le": {"ppc64"}}
"""What else a machine may run: whether this kernel does is the kernel's to say."""


def check_command(process: ProcessSpec, tree: Tree, mounted: Collection[str] = ()) -> None:
    """Raise `entrypoint-not-found` or `entrypoint-not-executable`; nothing where the command may be in one of the places
    of the tree that something is `mounted` on."""
    command = process.args[0]
    if "/" in command:
        places = [command if command.startswith("/") else f"{process.cwd}/{command}"]
    else:
        path = dict(process.env).get("PATH", DEFAULT_PATH)
        places = [f"{directory}/{command}" for directory in path.split(":") if directory.startswith("/")]
    refused: AosError | None = None
    for place in places:
        found = _follow(tree, place)
        if found is None or _within(found, mounted):
            return
        status = tree.lstat(found)
        if status is None:
            continue
        refused = _why_not(command, tree, found, status)
        if refused is None:
            return
    raise refused or not_found(command, tree)


def not_found(command: str, tree: Tree) -> AosError:
    near = near_names(command, tree)
    return FailedPrecondition(
        f"the image has no {command!r} to run",
        code="entrypoint-not-found",
        hint=f"there is: {', '.join(near)}" if near else "check the command and the image's PATH",
        exit_status=127,
        command=command,
    )


def not_executable(command: str, why: str, hint: str | None = None) -> AosError:
    return FailedPrecondition(
        f"{command or 'the command'} cannot be executed: {why}",
        code="entrypoint-not-executable",
        hint=hint or "it needs the executable bit, and the format of this machine or a '#!' line",
        exit_status=126,
        command=command,
    )


def near_names(command: str, tree: Tree) -> list[str]:
    """Executables of the image with a similar name."""
    name = command.rpartition("/")[2]
    names: set[str] = set()
    for directory in DEFAULT_PATH.split(":"):
        path = _follow(tree, directory)
        status = None if path is None else tree.lstat(path)
        if path is not None and status is not None and stat.S_ISDIR(status.st_mode):
            names.update(tree.names(path))
    return difflib.get_close_matches(name, sorted(names), n=3)


def _why_not(command: str, tree: Tree, path: str, status: os.stat_result) -> AosError | None:
    if stat.S_ISDIR(status.st_mode):
        return not_executable(command, "it is a directory")
    if not stat.S_ISREG(status.st_mode):
        return not_executable(command, "it is no file")
    if not status.st_mode & 0o111:
        return not_executable(command, "permission denied")
    with os.fdopen(tree.open(path), "rb") as file:
        head = file.read(_HEAD)
    ours = os.uname().machine
    if head[:4] == b"\x7fELF" and len(head) >= 20:
        order = "little" if head[5] == 1 else "big"
        number = int.from_bytes(head[18:20], order)  # type: ignore[arg-type]  # one of two literals
        theirs = _MACHINES.get(number, f"machine {number}")
        if theirs not in _RUNS.get(ours, {ours}):
            hint = f"run a package that was built for {ours}, or build it with --platform"
            return not_executable(command, f"it is a program for {theirs}, and this is {ours}", hint)
    if head[:2] == b"#!":
        interpreter = head[2:].partition(b"\n")[0].split()[:1]
        if interpreter and interpreter[0].startswith(b"/"):
            there = _follow(tree, os.fsdecode(interpreter[0]))
            if there is not None and tree.lstat(there) is None:
                name = os.fsdecode(interpreter[0])
                return not_executable(command, f"its interpreter {name} is not in the image", "install it")
    return None


def _follow(tree: Tree, path: str) -> str | None:
    """Where a path leads inside the tree; None when it goes round in circles, which the kernel is to say."""
    try:
        return resolve(tree, path, follow_last=True)
    except AosError:
        return None


def _within(path: str, places: Collection[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)
