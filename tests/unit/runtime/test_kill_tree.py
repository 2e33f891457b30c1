"""The end of a conmon that nobody knows, and of all that it has started, whatever it starts meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from aos.runtime.backends.supervised.conmon import kill_tree

_FORKS = """
import os, time
for _ in range(300):
    if os.fork() == 0:
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(60)
        time.sleep(60)
    time.sleep(0.0005)
time.sleep(60)
"""


def _marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                marked = os.fsencode(mark) in (entry / "cmdline").read_bytes()
                if marked and (entry / "stat").read_text().rpartition(") ")[2][0] not in "ZX":
                    found.append(int(entry.name))
    return found


def test_what_forks_meanwhile_is_killed_too(tmp_path: Path) -> None:
    bundle = tmp_path / secrets.token_hex(8)
    conmon = subprocess.Popen(["conmon", "-c", _FORKS, "-b", bundle], executable=sys.executable)
    try:
        while len(_marked(bundle.name)) < 20:
            time.sleep(0.001)

        async def kill() -> None:
            kill_tree(bundle)

        asyncio.run(kill())
        deadline = time.monotonic() + 5
        while left := _marked(bundle.name):
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
    finally:
        for pid in _marked(bundle.name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        conmon.wait()
