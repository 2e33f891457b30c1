"""Facts about the host that a figure cannot be read without."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

__all__ = ["facts"]

VERSIONS = {
    "runc": ["runc", "--version"],
    "crun": ["crun", "--version"],
    "runsc": ["runsc", "--version"],
    "conmon": ["conmon", "--version"],
    "podman": ["podman", "--version"],
    "buildah": ["buildah", "--version"],
    "containerd": ["containerd", "--version"],
    "git": ["git", "--version"],
}


def facts() -> dict[str, object]:
    memory = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": memory,
        "python": platform.python_version(),
        "cgroups": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1 or hybrid",
        "load_average": os.getloadavg(),
        "commit": _first_line(["git", "rev-parse", "HEAD"]),
        "versions": {name: _first_line(argv) for name, argv in VERSIONS.items()},
    }


def _first_line(argv: list[str]) -> str | None:
    if not shutil.which(argv[0]):
        return None
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0] if done.returncode == 0 else None
