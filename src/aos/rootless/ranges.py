"""The subordinate ids of a user: those of /etc/subuid and /etc/subgid, or of whatever stands behind getsubids(1).

Source: subuid(5), subgid(5).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["Extents", "id_map", "subordinate_ids"]

Extents = tuple[tuple[int, int], ...]
"""(first, how many)."""


def subordinate_ids(name: str, uid: int, kind: str, *, etc: Path = Path("/etc")) -> Extents:
    """The ranges of a user; `kind`: `uid` or `gid`. Empty where there are none."""
    try:
        lines = (etc / f"sub{kind}").read_text().splitlines()
    except OSError:
        lines = []
    found = tuple(_extent(line.split(":")[1:]) for line in lines if line.split(":")[0] in (name, str(uid)))
    return tuple(extent for extent in found if extent[1]) or _of_directory(name, kind)


def _of_directory(name: str, kind: str) -> Extents:
    """Those that a directory service hands out (`subid:` in nsswitch.conf)."""
    program = shutil.which("getsubids")
    if program is None:
        return ()
    words = [program, *(["-g"] if kind == "gid" else []), name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    # `0: name 100000 65536`
    found = tuple(_extent(line.split()[2:]) for line in done.stdout.splitlines())
    return tuple(extent for extent in found if extent[1])


def _extent(words: list[str]) -> tuple[int, int]:
    if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
        return 0, 0
    return int(words[0]), int(words[1])


def id_map(own: int, extents: Extents) -> list[str]:
    """The arguments of newuidmap(1): the user is 0, and the subordinate ids are the ones from 1 on."""
    words, inside = ["0", str(own), "1"], 1
    for first, count in extents:
        words += [str(inside), str(first), str(count)]
        inside += count
    return words
