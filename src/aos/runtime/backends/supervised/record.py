"""What is on disk of a sandbox, so that another instance of the backend knows as much as the one that made it.

<sandbox>/config.json     the OCI runtime's configuration
<sandbox>/sandbox.json    Record, once conmon runs
<sandbox>/exit/<id>       conmon's, once the process has ended
<sandbox>/status.json     ExitStatus, once somebody has put it together
<sandbox>/{upper,work,rootfs,log,pid,attach,ctl,exec/}; upper and log only where the AgentSpec names none
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aos.content.tree import LayerTree
from aos.runtime.state import ExitStatus, Usage

__all__ = [
    "Record",
    "parent",
    "process_has_executed",
    "process_start",
    "read_status",
    "remove_tree",
    "write_status",
]

_RECORD, _STATUS = "sandbox.json", "status.json"
_PF_FORKNOEXEC = 0x40


@dataclass(frozen=True, slots=True)
class Record:
    conmon: int
    conmon_start: str
    """Ticks since boot, from /proc/<pid>/stat: tells a pid from its next owner."""
    terminal: bool
    layers: tuple[str, ...]
    """Snapshot directories, base first."""
    upper: str
    log: str
    runtime: str
    """Path of the OCI runtime that made it, and serves it to its end."""
    options: tuple[str, ...]
    """What stands before the verb in each of the runtime's command lines."""
    image: str
    """The checkpoint that it goes on from; empty: it begins at its entrypoint."""
    ids: tuple[int, ...] = ()
    """(first, how many): the host's ids that its own are, from 0 on; empty: they are the host's."""
    host_ids: str = ""
    """Why they are the host's."""

    def write(self, directory: Path) -> None:
        _replace(directory / _RECORD, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        """None for a sandbox whose creation did not get that far."""
        try:
            raw = json.loads((directory / _RECORD).read_bytes())
            lists = {name: tuple(raw[name]) for name in ("layers", "options", "ids")}
            return cls(**{**raw, **lists})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def tree(self) -> LayerTree:
        """The root file system, as the sandbox has left it so far."""
        return LayerTree([*map(Path, self.layers), Path(self.upper)])

    @property
    def users(self) -> tuple[int, ...] | str:
        """As Sandbox has them."""
        return self.ids or self.host_ids

    def conmon_lives(self) -> bool:
        return process_start(self.conmon) == self.conmon_start


def process_start(pid: int) -> str | None:
    """When the process started (field 22 of proc_pid_stat(5)); None when it is gone, or a zombie."""
    fields = _process_fields(pid)
    return None if fields is None else fields[19].decode()


def parent(pid: int) -> int | None:
    """The pid of its parent (field 4); None when it is gone, or a zombie."""
    fields = _process_fields(pid)
    return None if fields is None else int(fields[1])


def process_has_executed(pid: int) -> bool:
    """Whether the process has executed a program since it was forked: until then the kernel marks it with
    PF_FORKNOEXEC (include/linux/sched.h; field 9 of proc_pid_stat(5))."""
    fields = _process_fields(pid)
    return fields is not None and not int(fields[6]) & _PF_FORKNOEXEC


def _process_fields(pid: int) -> list[bytes] | None:
    """The fields of proc_pid_stat(5) from the third on; None when the process is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - on the start path
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields


def write_status(directory: Path, status: ExitStatus) -> None:
    _replace(directory / _STATUS, asdict(status))


def read_status(directory: Path) -> ExitStatus | None:
    try:
        raw: dict[str, Any] = json.loads((directory / _STATUS).read_bytes())
        return ExitStatus(**{**raw, "usage": Usage(**raw["usage"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _replace(path: Path, value: object) -> None:
    """Whole or not at all. Not synced: after a power failure the sandbox is gone anyway."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:  # noqa: PTH123 - on the start path
        json.dump(value, file)
    os.replace(temporary, path)  # noqa: PTH105 - the same


def remove_tree(path: Path) -> None:
    """A tree that may be gone already, or of which somebody else removes a part at the same time."""
    while path.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
