"""What a person notices of `kill -9` of the daemon at the worst moments: nothing."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fix_installation import Installation

pytestmark = pytest.mark.root


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not appear"
        time.sleep(0.01)


def test_an_agent_lives_on_as_the_same_process(aos: Installation) -> None:
    aos("run", "-d", "--name", "a", "busybox:1", "-c", "sleep 1000")
    before = aos("exec", "a", "cat", "/proc/1/stat").out.split()
    old = aos.kill_daemon()
    after = aos("exec", "a", "cat", "/proc/1/stat").out.split()
    assert after[21] == before[21]  # when it started
    assert aos.daemon() != old


def test_an_exit_while_nobody_watches_is_known_afterwards(aos: Installation, tmp_path: Path) -> None:
    aos("run", "-d", "--name", "a", "-v", f"{tmp_path}:/marks", "busybox:1", "-c",
        "while [ ! -e /marks/go ]; do sleep 0.01; done; echo last words; touch /marks/gone; exit 42")  # fmt: skip
    aos.kill_daemon()
    (tmp_path / "go").touch()
    wait_for(tmp_path / "gone")
    assert aos("wait", "a").out == "42\n"
    [record] = aos("inspect", "a").json
    assert (record["exit"]["cause"], record["exit"]["code"]) == ("exited", 42)
    assert "last words" in record["exit"]["tail"]


def test_a_session_goes_on(aos: Installation) -> None:
    with aos.start("run", "-i", "--rm", "busybox:1", "-c", "cat; exit 9") as session:
        assert session.stdin
        assert session.stdout
        for word in (b"before\n", b"after\n"):
            session.stdin.write(word)
            session.stdin.flush()
            assert session.stdout.readline() == word
            aos.kill_daemon()
        session.stdin.close()
        assert session.wait(20) == 9
    assert aos("ps", "-a", "-o", "json").json == []


def test_a_stop_gives_the_time_that_it_promised(aos: Installation, tmp_path: Path) -> None:
    aos("run", "-d", "--name", "a", "-v", f"{tmp_path}:/marks", "busybox:1", "-c",
        "trap 'touch /marks/asked; while [ ! -e /marks/go ]; do sleep 0.01; done; exit 7' TERM;"
        "touch /marks/ready; while :; do sleep 0.01; done")  # fmt: skip
    wait_for(tmp_path / "ready")
    with aos.start("stop", "--time", "60", "a", stdout=subprocess.DEVNULL) as stop:
        wait_for(tmp_path / "asked")
        aos.kill_daemon()
        aos("ps")  # somebody needs the daemon: it starts, and adopts an agent that is being stopped
        (tmp_path / "go").touch()
        stop.wait(30)
    assert aos("wait", "a").out == "7\n"


def test_a_restart_policy_goes_on(aos: Installation, tmp_path: Path) -> None:
    aos("run", "-d", "--name", "a", "--restart", "on-failure", "-v", f"{tmp_path}:/marks", "busybox:1", "-c",
        "[ -e /marks/failed ] && exit 0; while [ ! -e /marks/go ]; do sleep 0.01; done; touch /marks/failed; exit 1")  # fmt: skip
    aos.kill_daemon()
    (tmp_path / "go").touch()
    wait_for(tmp_path / "failed")
    assert aos("wait", "a").out == "0\n"
    [record] = aos("inspect", "a").json
    assert record["restarts"] == 1


def test_two_states_do_not_share_a_root(aos: Installation) -> None:
    """The second daemon would take the first one's sandboxes for lost."""
    aos("node", "start")
    other = replace(aos, config=replace(aos.config, state=aos.state.with_name("other")))
    refused = other("node", "start", check=5)
    assert "another node" in refused.err
    aos("node", "stop")
    other("node", "start")
    other("node", "stop")
