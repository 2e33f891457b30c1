"""`aos logs`: whole, the end of it, from a time on, and as it grows."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fix_installation import Installation

pytestmark = pytest.mark.root


def finished(aos: Installation, script: str, name: str = "a") -> None:
    aos("run", "-d", "--name", name, "busybox:1", "-c", script)
    aos("wait", name)


def test_whole_and_apart(aos: Installation) -> None:
    finished(aos, "echo one; echo two >&2; printf 'three\\n\\nno end'")
    done = aos("logs", "a")
    assert (done.out, done.err) == ("one\nthree\n\nno end", "two\n")


def test_tail(aos: Installation) -> None:
    finished(aos, "seq 1000; yes x | head -c 20000; echo; echo last")
    assert aos("logs", "--tail", "1", "a").out == "last\n"
    long = aos("logs", "-n", "10002", "a").out
    assert long.endswith("x\n\nlast\n")
    assert aos("logs", "--tail", "0", "a").out == ""
    assert aos("logs", "--tail", "all", "a").out.startswith("1\n2\n")


def test_a_line_longer_than_a_record(aos: Installation) -> None:
    finished(aos, "head -c 100000 /dev/zero | tr '\\0' z; echo; echo after")
    assert aos("logs", "a").out == "z" * 100_000 + "\nafter\n"
    assert aos("logs", "--tail", "2", "a").out == "z" * 100_000 + "\nafter\n"


def test_timestamps_and_since(aos: Installation) -> None:
    finished(aos, "echo before; sleep 1.2; echo after")
    lines = aos("logs", "--timestamps", "a").out.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["before", "after"]
    assert aos("logs", "--since", lines[1].split()[0], "a").out == "after\n"
    assert aos("logs", "--since", "1h", "a").out == "before\nafter\n"
    assert aos("logs", "--since", "2100-01-01", "a").out == ""


def test_follow_ends_with_the_agent(aos: Installation) -> None:
    aos(
        "run",
        "-d",
        "-i",
        "--name",
        "a",
        "busybox:1",
        "-c",
        "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; printf end",
    )
    assert aos("logs", "-f", "a").out == "1\n2\n3\n4\n5\nend"
    assert aos("logs", "-f", "a").out == "1\n2\n3\n4\n5\nend"


def test_follow_shows_lines_as_they_come_and_outlives_the_daemon(aos: Installation, tmp_path: Path) -> None:
    script = "echo one; until [ -e /data/go ]; do sleep 0.02; done; echo two"
    aos("run", "-d", "--name", "a", "-v", f"{tmp_path}:/data", "busybox:1", "-c", script)
    following = aos.start("logs", "-f", "a", stdin=subprocess.DEVNULL)
    assert following.stdout
    assert following.stdout.readline() == b"one\n"
    aos.kill_daemon()
    (tmp_path / "go").touch()
    out, err = following.communicate(timeout=30)
    assert (out, err, following.returncode) == (b"two\n", b"", 0)


def test_follow_of_an_agent_that_is_removed(aos: Installation, tmp_path: Path) -> None:
    script = "echo one; until [ -e /data/go ]; do sleep 0.02; done; echo two"
    aos("run", "-d", "--rm", "--name", "a", "-v", f"{tmp_path}:/data", "busybox:1", "-c", script)
    following = aos.start("logs", "-f", "a", stdin=subprocess.DEVNULL)
    assert following.stdout
    assert following.stdout.readline() == b"one\n"
    (tmp_path / "go").touch()
    assert following.communicate(timeout=30)[0] == b"two\n"


def test_a_reader_that_leaves(aos: Installation) -> None:
    finished(aos, "seq 100000")
    following = aos.start("logs", "a", stdin=subprocess.DEVNULL)
    assert following.stdout
    following.stdout.readline()
    following.stdout.close()
    assert following.wait(20) == 141
    assert following.stderr
    assert following.stderr.read() == b""
    following.stderr.close()


def test_quick(aos: Installation) -> None:
    finished(aos, "seq 300000")
    started = time.monotonic()
    assert len(aos("logs", "a").out.splitlines()) == 300_000
    assert time.monotonic() - started < 10
    started = time.monotonic()
    assert aos("logs", "--tail", "2", "a").out == "299999\n300000\n"
    assert time.monotonic() - started < 2


def test_a_log_is_its_agents_and_goes_with_it(aos: Installation, tmp_path: Path) -> None:
    """All processes write into one log; the exit record of each has its own last lines."""
    script = "echo x >> /data/n; echo run $(wc -l < /data/n); [ $(wc -l < /data/n) -ge 3 ]"
    run = ["run", "-d", "--name", "a", "--restart", "on-failure", "-v", f"{tmp_path}:/data"]
    aos(*run, "busybox:1", "-c", script)
    aos("wait", "a")
    assert aos("logs", "a").out == "run 1\nrun 2\nrun 3\n"
    (inspected,) = aos("inspect", "a").json
    tails = [process["exit"]["tail"] for process in inspected["processes"]]
    assert tails == ["run 1", "run 2", "run 3"]
    aos("rm", "a")
    deadline = time.monotonic() + 5
    while list((aos.root / "logs").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
