"""What an installation can leave on a host: mounts, cgroups, processes. Used to show that it leaves nothing."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aos.config import Config

__all__ = ["SETTLE", "Traces", "claims_of", "namespaces_in", "namespaces_of"]

_CLAIMS = Path("/var/lib/aos-ids")

SETTLE = 5.0
"""Seconds until what ends by itself (a process that was told to, a cgroup that empties) has to be gone."""


@dataclass(frozen=True, slots=True)
class Traces:
    mounts: frozenset[str]
    """Mount points under root or state, in any mount namespace of the host."""
    cgroups: frozenset[str]
    processes: frozenset[str]
    """`pid: command line` of processes that name root or state."""

    @classmethod
    def of(cls, config: Config) -> Traces:
        places = [os.fsencode(config.root), os.fsencode(config.state)]
        mounts: set[str] = set()
        processes: set[str] = set()
        seen: set[str] = set()
        for process in _processes():
            try:
                namespace = (process / "ns/mnt").readlink().name
                if namespace not in seen:
                    seen.add(namespace)
                    lines = (process / "mountinfo").read_bytes().splitlines()
                    mounts |= {os.fsdecode(line) for line in lines if any(place in line for place in places)}
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile, or belongs to somebody else
            if any(place in words for place in places) and int(process.name) != os.getpid():
                processes.add(f"{process.name}: {os.fsdecode(words.replace(bytes(1), b' ')).strip()}")
        return cls(frozenset(mounts), _cgroups(config.installation), frozenset(processes))

    def lines(self) -> frozenset[str]:
        return self.mounts | self.cgroups | self.processes

    def since(self, before: Traces) -> Traces:
        return Traces(
            self.mounts - before.mounts, self.cgroups - before.cgroups, self.processes - before.processes
        )

    def settle(self, config: Config, before: Traces) -> None:
        """Fail unless everything that was not there before is gone, or goes within SETTLE seconds."""
        deadline = time.monotonic() + SETTLE
        left = self.since(before)
        while left.mounts or left.cgroups or left.processes:
            if time.monotonic() > deadline:
                raise AssertionError(f"left behind: {left}")
            time.sleep(0.02)
            left = Traces.of(config).since(before)
        for own in _own_cgroups(config.installation):
            Path(own).rmdir()


def claims_of(config: Config) -> frozenset[str]:
    """Ranges of user ids that sandboxes of an installation have; others of the host come and go meanwhile."""
    found: set[str] = set()
    for link in _CLAIMS.glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError):
            if config.root in link.readlink().parents:
                found.add(str(link))
    return frozenset(found)


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _cgroups(name: str) -> frozenset[str]:
    """The groups of sandboxes: whatever is below the installation's own, in each of a version 1 host's trees.

    The installation's own is not counted while it is empty: the next start uses it again.
    """
    return frozenset(
        directory
        for own in _own_cgroups(name)
        for directory, _, _ in os.walk(own)
        if directory != own or _read(Path(own, "cgroup.procs"))
    )


def _own_cgroups(name: str) -> list[str]:
    found = []
    for directory, subdirectories, _ in os.walk("/sys/fs/cgroup"):
        if name in subdirectories:
            found.append(f"{directory}/{name}")
            subdirectories.remove(name)
    return found


def namespaces_of(config: Config) -> set[frozenset[str]]:
    """Of each process in our cgroups, the namespaces (`net:[4026532281]`) that it has and we do not."""
    pids = {
        pid for cgroup in _cgroups(config.installation) for pid in _read(Path(cgroup, "cgroup.procs")).split()
    }
    ours = _namespaces(Path("/proc/self"))
    return {names for pid in pids if len(names := _namespaces(Path("/proc") / pid) - ours) > 1}


def namespaces_in(sets: set[frozenset[str]], config: Config) -> list[str]:
    """The processes of the host that live in all namespaces of one of the sets, and in no group of another installation.

    The kernel gives the numbers of namespaces that are gone to the next ones, and another's sandbox may get all.
    """
    others = re.compile(rf"/aos-(?!{config.installation.removeprefix('aos-')})[0-9a-f]{{8}}/")
    found = {
        process.name: _namespaces(process)
        for process in _processes()
        if not others.search(_read(process / "cgroup"))
    }
    return [
        f"process {pid} in {sorted(has & names)}"
        for pid, has in found.items()
        for names in sets
        if names <= has
    ]


def _namespaces(process: Path) -> frozenset[str]:
    try:
        return frozenset(entry.readlink().name for entry in (process / "ns").iterdir())
    except OSError:
        return frozenset()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
