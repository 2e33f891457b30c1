"""`make demo` does what it shows, and the examples' agents answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aos.config import Config
from fix_installation import requires, requires_root
from traces import Traces

REPOSITORY = Path(__file__).parents[2]
HOME = REPOSITORY / ".cache/demo"


@pytest.mark.root
@pytest.mark.network
def test_the_demo_shows_the_main_job_and_leaves_nothing_running() -> None:
    requires_root()
    requires("mmdebstrap", "git")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples/demo.py")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout

    assert "Hello, world! This is Python 3" in shown
    assert re.search(r"^initialize → mcp-git \d", shown, re.MULTILINE)
    assert re.search(
        r"^tools/list → .*git_log.*git_status|^tools/list → .*git_status.*git_log", shown, re.MULTILINE
    )
    assert "Message: Add todo.md" in shown
    assert "nothing to commit, working tree clean" in shown  # asked after the daemon was killed
    old, new = re.findall(r"kill -9 (\d+)|a new daemon \(pid (\d+)", shown)
    assert old[0] != new[1]

    left = Traces.of(Config(root=HOME / "root", state=Path("/run/aos-demo-")))
    assert not left.processes
    assert not left.mounts
    assert not left.cgroups
