"""What must not shape a package: places, people, clocks. Contexts are checked out and built in them."""

from __future__ import annotations

import os
import random
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fix_installation import requires

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fix_installation import Installation

__all__ = ["HERE", "THERE", "WHEREVER", "Circumstance"]


@dataclass(frozen=True, slots=True)
class Circumstance:
    clock: str
    """What libfaketime makes of the clock."""
    umask: int
    environ: dict[str, str] = field(default_factory=dict)
    order: int = 0
    """In which order the files of a context are created: 0 by name, -1 backwards, else a seed."""
    owner: int = 0
    """Of the files of a context."""
    jobs: int = 2
    memory: bool = False
    """The store and the workspace are on a file system in memory."""

    def checkout(self, source: Path, target: Path) -> Path:
        """Another checkout of a context: the same names, content, links and executable bits."""
        before = os.umask(self.umask)
        try:
            paths = sorted(source.rglob("*"), reverse=self.order < 0)
            if self.order > 0:
                random.Random(self.order).shuffle(paths)
            target.mkdir(parents=True)
            for path in paths:
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if path.is_symlink():
                    copy.symlink_to(path.readlink())
                elif path.is_dir():
                    copy.mkdir(exist_ok=True)
                else:
                    copy.write_bytes(path.read_bytes())
                    if path.stat().st_mode & 0o100:
                        copy.chmod(0o777 & ~self.umask)
                os.chown(copy, self.owner, self.owner, follow_symlinks=False)
        finally:
            os.umask(before)
        return target

    def build(
        self, installation: Installation, context: Path, *words: str, environ: Mapping[str, str] | None = None
    ) -> str:
        """`aos build -q` of a context, from a working directory that is not the caller's; the digest."""
        requires("faketime")
        command = installation.command("build", "-q", "--jobs", str(self.jobs), *words, context)
        done = subprocess.run(
            ["faketime", self.clock, *command],
            env={**installation.environment(), **self.environ, **(environ or {})},
            umask=self.umask,
            cwd=context.parent,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{context.name}: {self}\n{done.stderr}"
        return done.stdout.strip()


HERE = Circumstance("2026-01-02 03:04:05", 0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8"})
THERE = Circumstance(
    "2031-07-08 09:10:11",
    0o077,
    {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "de_DE.UTF-8",
        "HOME": "/tmp",
        "USER": "somebody",
        "LOGNAME": "somebody",
    },
    order=-1,
    owner=1234,
    jobs=1,
    memory=True,
)
WHEREVER = (
    HERE,
    THERE,
    Circumstance(
        "2020-02-29 23:59:58",
        0o000,
        {"TZ": "America/St_Johns", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "1"},
        order=7,
        owner=65534,
        jobs=4,
    ),
    Circumstance(
        "2037-12-31 12:00:00",
        0o027,
        {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "HOME": "/nonexistent", "PYTHONHASHSEED": "2"},
        order=8,
        jobs=3,
        memory=True,
    ),
)
"""Four that differ from one another in everything."""
