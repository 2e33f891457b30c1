"""Going into the user's own user namespace, which is made by the first who needs it.

It lives as long as a process is in it: the daemon, a build, what supervises an agent. Its number is kept in the state
directory, so that whoever comes next goes into the same one (only there may it send signals to sandboxes that it did not
make) or makes another when nobody is in it any more. Nothing else stays, and there is nothing to end.

Each process has a mount namespace of its own in it: what is mounted for a sandbox is that sandbox's alone anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition
from aos.rootless.ranges import id_map, subordinate_ids
from aos.rootless.user import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from aos.rootless.ranges import Extents

__all__ = ["enter"]

_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_MS_REC, _MS_SLAVE = 0x4000, 1 << 19
_SECONDS = 10


def enter(state: Path, environ: MutableMapping[str, str]) -> None:
    """Take this process, which has no other threads yet, into the user's namespace; root stays where it is.

    FailedPrecondition `subids-missing`, `newuidmap-missing`, `user-namespace-unavailable`, `no-state-directory`."""
    uid = os.getuid()
    if uid == 0:
        return
    with _alone(state) as file:
        number = file.read_text() if file.exists() else ""
        namespace = _living(number)
        if namespace is not None:
            _call("setns", namespace, _CLONE_NEWUSER)
            os.close(namespace)
        else:
            _make(uid)
            number = str(Path("/proc/self/ns/user").readlink())
        file.write_text(f"{number.split()[0]} {os.getpid()}\n")
    _call("unshare", _CLONE_NEWNS)
    _call("mount", None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None)
    environ[VARIABLE] = str(uid)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[Path]:
    """Hold the lock on the note of the namespace, and give the note."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(state / "user-namespace.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FailedPrecondition(
            f"{state}: this user has no directory for sockets and locks there: {error.strerror}",
            code="no-state-directory",
            hint="log in as the user (su and sudo make no /run/user), `loginctl enable-linger`, or set AOS_STATE to a "
            "directory of the user's own that is empty after a reboot",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield state / "user-namespace"
    finally:
        os.close(lock)


def _living(note: str) -> int | None:
    """A descriptor of the noted namespace: by the process that is noted, else by any that is in it."""
    number, _, pid = note.strip().partition(" ")
    if not number:
        return None
    for place in (pid, *(entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal())):
        with contextlib.suppress(OSError):
            found = os.open(f"/proc/{place}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            if str(Path(f"/proc/self/fd/{found}").readlink()) == number:
                return found
            os.close(found)
    return None


def _make(uid: int) -> None:
    tools = [_tool("newuidmap"), _tool("newgidmap")]
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    users, groups = (_ranges(name, uid, kind) for kind in ("uid", "gid"))
    maps = [id_map(uid, users), id_map(os.getgid(), groups)]
    pid = str(os.getpid())
    # The tools must be outside: a shell that is there already starts them once this process has gone in.
    script = 'read _ && "$1" $2 && "$3" $4'
    words = [f"{pid} {' '.join(words)}" for words in maps]
    with subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", tools[0], words[0], tools[1], words[1]],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as shell:
        try:
            _call("unshare", _CLONE_NEWUSER)
        except BaseException:
            shell.kill()
            raise
        _, said = shell.communicate("\n", timeout=_SECONDS)
    if shell.returncode != 0:
        raise _unavailable(said.strip() or f"newuidmap ended with {shell.returncode}")


def _tool(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/bin:/usr/sbin")
    if found is None:
        raise FailedPrecondition(
            f"{name} is not installed: this user has no way to its subordinate ids",
            code="newuidmap-missing",
            hint="`apt-get install uidmap`, `dnf install shadow-utils`; `aos doctor` checks the rest",
            tool=name,
        )
    return found


def _ranges(name: str, uid: int, kind: str) -> Extents:
    found = subordinate_ids(name, uid, kind)
    if not found:
        raise FailedPrecondition(
            f"user {name} has no subordinate {kind}s: layers and agents have files of more than one user",
            code="subids-missing",
            hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} "
            f"(a range that nobody has yet in /etc/sub{kind})",
        )
    return found


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise _unavailable(f"{name}: {os.strerror(ctypes.get_errno())}")


def _unavailable(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"no user namespace can be made for this user: {why}",
        code="user-namespace-unavailable",
        hint="`aos doctor` says what this host lacks",
    )
