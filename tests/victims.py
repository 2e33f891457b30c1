"""Whom a campaign may kill: the daemon of one installation, and what supervises and runs its sandboxes.

Each is known by what leads to it alone: the daemon by the state directory in its environment, a conmon by the bundle below
the installation's root that its command line names, an OCI runtime by the installation's state directory in its own or
by its parent, an agent by being the child of such a conmon. A name alone kills nobody.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fix_installation import daemon_pids

if TYPE_CHECKING:
    from aos.config import Config

__all__ = ["VICTIMS", "Victim", "victims"]

VICTIMS = ("daemon", "conmon", "runtime", "agent")
_SUPERVISOR, _CREATING = b"conmon", b"init"
"""What conmon's program is called; the argument that runc starts itself again with, inside of a sandbox."""


@dataclass(frozen=True, slots=True)
class Victim:
    kind: str
    pid: int
    start: bytes
    """Ticks since boot: tells a pid from its next owner."""
    command: str
    sandbox: str = ""
    """The sandbox that it serves, or is; empty for a daemon."""
    exec: str = ""
    """The exec that it serves, or is."""

    def kill(self) -> bool:
        """SIGKILL, unless it has gone already. (A zombie cannot be told from who dies of it: both have a number.)"""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            found = _Process.read(self.pid)
            if found is None or found.start != self.start:
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    start: bytes
    argv: tuple[bytes, ...]

    @classmethod
    def read(cls, pid: int) -> _Process | None:
        """None when it is gone, or a zombie."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()  # from the third on
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(bytes(1))
        except OSError:
            return None
        return None if fields[0] in b"ZX" else cls(pid, int(fields[1]), fields[19], tuple(argv))

    def after(self, word: bytes) -> bytes:
        return self.argv[self.argv.index(word) + 1] if word in self.argv[:-1] else b""


def victims(config: Config, kind: str) -> list[Victim]:
    """Those that are there now, in the order of their pids."""
    there = {
        pid: process
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208
        if (process := _Process.read(pid)) is not None
    }
    if kind == "daemon":
        return [Victim(kind, pid, there[pid].start, "aosd") for pid in daemon_pids(config) if pid in there]
    found = []
    for process in there.values():
        if (known := _known(config, process, there)) is not None and known[0] == kind:
            words = b" ".join(process.argv).decode(errors="replace").strip()
            found.append(Victim(kind, process.pid, process.start, words, *known[1:]))
    return found


def _known(config: Config, process: _Process, there: dict[int, _Process]) -> tuple[str, str, str] | None:
    """(kind, sandbox, exec) of a process; None for everybody else's."""
    own, parent = _bundle(config, process), there.get(process.parent)
    above = _bundle(config, parent) if parent is not None else None
    if own is not None:
        # What a conmon starts has its command line until it has executed its own.
        return ("conmon" if above is None else "runtime", *own)
    if process.after(b"--root").startswith(os.fsencode(config.state / "runtime") + b"/"):
        # A daemon's own calls end with the sandbox.
        return ("runtime", *(above or ([word.decode() for word in process.argv if word][-1], "")))
    if parent is None:
        return None
    if process.argv[1:2] == (_CREATING,):
        known = ("runtime", *above) if above is not None else _known(config, parent, there)
        return known if known is not None and known[0] == "runtime" else None
    return ("agent", *above) if above is not None else None


def _bundle(config: Config, process: _Process) -> tuple[str, str] | None:
    """(sandbox, exec) of a conmon of this installation."""
    sandboxes = os.fsencode(config.root / "sandboxes") + b"/"
    bundle = process.after(b"-b")
    if process.argv[0].rpartition(b"/")[2] != _SUPERVISOR or not bundle.startswith(sandboxes):
        return None
    _, sandbox, *rest = bundle.removeprefix(sandboxes).decode().split("/")
    return sandbox, rest[1] if rest else ""
