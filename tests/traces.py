"""What an installation can leave on a host: mounts, cgroups, processes. Used to show that it leaves nothing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aos.config import Config

__all__ = ["Traces", "namespaces_in", "namespaces_of"]

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


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _cgroups(name: str) -> frozenset[str]:
    """Directories of the cgroup file systems that carry the installation's name (a v1 host has many trees)."""
    found: set[str] = set()
    for directory, subdirectories, _ in os.walk("/sys/fs/cgroup"):
        for child in list(subdirectories):
            if name in child:
                found.add(f"{directory}/{child}")
                subdirectories.remove(child)
    return frozenset(found)


def namespaces_of(config: Config) -> set[str]:
    """The namespaces (`net:[4026532281]`) that processes in our cgroups have and we do not."""
    pids = {
        pid
        for cgroup in _cgroups(config.installation)
        for file in Path(cgroup).rglob("cgroup.procs")
        for pid in _read(file).split()
    }
    return {name for pid in pids for name in _namespaces(Path("/proc") / pid)} - _namespaces(
        Path("/proc/self")
    )


def namespaces_in(wanted: set[str]) -> dict[str, set[str]]:
    """The processes of the host that live in any of these namespaces. (The kernel reuses numbers only when free.)"""
    found = {process.name: _namespaces(process) & wanted for process in _processes()}
    return {pid: names for pid, names in found.items() if names}


def _namespaces(process: Path) -> set[str]:
    try:
        return {entry.readlink().name for entry in (process / "ns").iterdir()}
    except OSError:
        return set()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
