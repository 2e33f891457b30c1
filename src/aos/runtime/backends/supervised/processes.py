"""The processes of a sandbox, read from /proc: their numbers are those that the sandbox gives them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.rootless.user import in_user_namespace
from aos.runtime.state import ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_processes"]

_COMMAND = 4096
"""Bytes of a command line that are read."""


def read_processes(pids: Iterable[int]) -> list[ProcessInfo]:
    """Of these host pids, those that still are there; by their pids in the sandbox."""
    booted = _boot_time()
    inner: dict[int, int] = {}
    rows = []
    for pid in pids:
        row = _read(pid)
        if row is not None:
            inner[pid] = row["pid"]
            rows.append(row)
    tick = os.sysconf("SC_CLK_TCK")
    return sorted(
        (
            ProcessInfo(
                pid=row["pid"],
                ppid=inner.get(row["ppid"], 0),
                user=row["user"],
                started_at=booted + row["start"] / tick,
                cpu_seconds=row["cpu"] / tick,
                memory_bytes=row["pages"] * os.sysconf("SC_PAGE_SIZE"),
                command=row["command"],
            )
            for row in rows
        ),
        key=lambda one: one.pid,
    )


def _read(pid: int) -> dict[str, Any] | None:
    directory = Path(f"/proc/{pid}")
    try:
        status = dict(line.partition(":")[::2] for line in (directory / "status").read_text().splitlines())
        # After the name, which may hold anything: state ppid … utime stime (14, 15) … starttime (22), proc(5).
        numbers = (directory / "stat").read_text().rpartition(")")[2].split()
        with (directory / "cmdline").open("rb") as file:
            command = file.read(_COMMAND)
    except OSError:
        return None
    return {
        "pid": int(status.get("NSpid", str(pid)).split()[-1]),
        "ppid": int(numbers[1]),
        "user": _inner_user(directory, int(status["Uid"].split()[1])),
        "cpu": int(numbers[11]) + int(numbers[12]),
        "start": int(numbers[19]),
        "pages": int(numbers[21]),
        "command": _words(command) or f"[{status['Name'].strip()}]",
    }


def _inner_user(directory: Path, uid: int) -> str:
    """A user of the host as the process's user namespace numbers it."""
    if in_user_namespace():  # which is the process's own: its map speaks of those outside
        return str(uid)
    try:
        for line in (directory / "uid_map").read_text().splitlines():
            inside, outside, count = map(int, line.split())
            if outside <= uid < outside + count:
                return str(uid - outside + inside)
    except (OSError, ValueError):
        pass
    return str(uid)


def _words(command: bytes) -> str:
    """A command line on one line, without what a terminal would obey."""
    text = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def _boot_time() -> float:
    """Seconds since the epoch."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
