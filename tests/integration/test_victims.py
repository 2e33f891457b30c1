"""The tests' own search for whom to kill: a campaign kills what it finds, so it must find nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aos.config import Config
from fix_installation import daemon_pids, new_installation
from victims import VICTIMS, victims

if TYPE_CHECKING:
    from pathlib import Path

    from fix_installation import Installation

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


@pytest.mark.root
def test_who_belongs_to_a_sandbox_is_found_and_nobody_of_another_installation(aos: Installation) -> None:
    aos("run", "-d", "--name", "a", "busybox:1", "-c", "sleep 1000 & wait")
    executing = aos.start("exec", "-i", "a", "cat")
    assert executing.stdin
    assert executing.stdout
    executing.stdin.write(b"ready\n")
    executing.stdin.flush()
    assert executing.stdout.readline() == b"ready\n"
    [record] = aos("inspect", "a").json
    found = {kind: victims(aos.config, kind) for kind in VICTIMS}
    assert [one.pid for one in found["daemon"]] == [aos.daemon()]
    assert found["runtime"] == []
    for kind in ("conmon", "agent"):
        assert [one.sandbox for one in found[kind]] == [record["sandbox"]] * 2
        assert [bool(one.exec) for one in found[kind]] == [False, True]
    assert [one.command for one in found["agent"]] == ["/bin/sh -c sleep 1000 & wait", "cat"]
    other = new_installation()
    assert [victims(other.config, kind) for kind in VICTIMS] == [[]] * len(VICTIMS)
    other.root.parent.rmdir()
    assert found["agent"][1].kill()
    assert executing.wait(10) == 137
    assert not found["agent"][1].kill()
