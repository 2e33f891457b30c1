"""The tests' own search for daemons: a campaign kills what it finds, so it must find nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from aos.config import Config
from fix_installation import daemon_pids

if TYPE_CHECKING:
    from pathlib import Path

SPAWNING = """
import os, time
print(flush=True)
while True:  # serve_node
    os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
"""


def test_what_a_daemon_is_about_to_start_is_no_daemon(tmp_path: Path) -> None:
    """Between vfork and exec a child has its parent's command line; a kill that comes later hits a conmon."""
    config = Config(tmp_path / "root", tmp_path / "state")
    environ = {**os.environ, "AOS_STATE": str(config.state)}
    with subprocess.Popen([sys.executable, "-c", SPAWNING], env=environ, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout
        daemon.stdout.readline()
        try:
            found = {pid for _ in range(150) for pid in daemon_pids(config)}
        finally:
            daemon.kill()
    assert found == {daemon.pid}
