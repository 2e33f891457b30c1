"""The verbs that look after agents: ps, stop, kill, rm, wait, inspect, stats, events, df, prune."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fix_installation import Installation

pytestmark = pytest.mark.root


def sleeper(aos: Installation, name: str, *options: str) -> str:
    """Start an agent that ends at SIGTERM with code 4; its id."""
    script = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    return aos("run", "-d", "--name", name, *options, "busybox:1", "-c", script).out.strip()


def ready(aos: Installation, name: str) -> None:
    """Wait until the agent has set its trap."""
    deadline = time.monotonic() + 20
    while "ready" not in aos("logs", name).out:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ps(aos: Installation) -> None:
    assert aos("ps").out == "AGENT ID   NAME   PACKAGE   STATUS   CREATED   PID\n"
    first = sleeper(aos, "first")
    second = aos("run", "-d", "--name", "second", "busybox:1", "-c", "exit 3").out.strip()
    aos("wait", "second")
    lines = aos("ps").out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:3] == [first, "first", "busybox:1"]
    assert "Up " in lines[1]
    everything = aos("ps", "-a").out
    assert "Exited (3) " in everything
    assert aos("ps", "-aq").out.split() == [second, first]
    assert {agent["name"] for agent in aos("ps", "-a", "-o", "json").json} == {"first", "second"}
    assert aos("ps", "--no-trunc").out.splitlines()[1].split()[0] == first


def test_stop(aos: Installation) -> None:
    sleeper(aos, "a")
    agent = sleeper(aos, "b")
    ready(aos, "a")
    ready(aos, "b")
    assert aos("stop", "a", agent[:6]).out == f"a\n{agent[:6]}\n"
    assert aos("wait", "a", "b").out == "4\n4\n"


def test_stop_kills_what_does_not_end(aos: Installation) -> None:
    aos(
        "run",
        "-d",
        "--name",
        "deaf",
        "busybox:1",
        "-c",
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    )
    ready(aos, "deaf")
    started = time.monotonic()
    aos("stop", "-t", "0.5", "deaf")
    assert 0.4 < time.monotonic() - started < 8
    assert aos("wait", "deaf").out == "137\n"


def test_kill(aos: Installation) -> None:
    sleeper(aos, "a")
    ready(aos, "a")
    assert aos("kill", "-s", "SIGTERM", "a").out == "a\n"
    assert aos("wait", "a").out == "4\n"
    sleeper(aos, "b")
    aos("kill", "b")
    assert aos("wait", "b").out == "137\n"


def test_wait_blocks_until_the_end(aos: Installation) -> None:
    sleeper(aos, "a")
    ready(aos, "a")
    waiting = aos.start("wait", "a", stdin=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.3)
    aos("stop", "a")
    assert waiting.communicate(timeout=20)[0] == b"4\n"


def test_wait_outlives_the_daemon(aos: Installation) -> None:
    sleeper(aos, "a")
    ready(aos, "a")
    waiting = aos.start("wait", "a", stdin=subprocess.DEVNULL)
    threading.Event().wait(0.2)
    aos.kill_daemon()
    aos("stop", "a")
    assert waiting.communicate(timeout=20)[0] == b"4\n"


def test_rm(aos: Installation) -> None:
    sleeper(aos, "a")
    refused = aos("rm", "a", check=5)
    assert "a" in refused.err
    assert "hint: " in refused.err
    assert aos("rm", "-f", "a", "absent").out == "a\n"
    assert aos("ps", "-aq").out == ""
    aos("run", "--name", "done", "busybox:1", "-c", "true")
    assert aos("rm", "done").out == "done\n"


def test_inspect(aos: Installation) -> None:
    aos("run", "--name", "done", "busybox:1", "-c", "echo last words; exit 3", check=3)
    (record,) = aos("inspect", "done").json
    text = json.dumps(record)
    assert '"done"' in text
    assert "last words" in text
    both = aos("inspect", "done", "absent", check=3)
    assert len(both.json) == 1
    assert "absent" in both.err


def test_stats(aos: Installation) -> None:
    agent = sleeper(aos, "a")
    lines = aos("stats", "--no-stream").out.splitlines()
    assert lines[0].split()[:2] == ["AGENT", "ID"]
    assert lines[1].split()[:2] == [agent, "a"]
    assert "%" in lines[1]
    (one,) = aos("stats", "-o", "json", "a").json
    assert one["usage"]["memory_bytes"] > 0
    assert aos("stats", "absent", check=3).err.startswith("aos stats: ")


def test_events(aos: Installation) -> None:
    aos("run", "--rm", "--name", "a", "busybox:1", "-c", "exit 3", check=3)
    events = [json.loads(line) for line in aos("events", "-o", "json").out.splitlines()]
    assert len(events) >= 3
    cursors = [event["cursor"] for event in events]
    assert cursors == sorted(cursors)
    after = [
        json.loads(line) for line in aos("events", "--since", str(cursors[1]), "-o", "json").out.splitlines()
    ]
    assert [event["cursor"] for event in after] == cursors[2:]
    assert len(aos("events", "--since", "10m").out.splitlines()) == len(events)
    assert aos("events", "--since", "2000000000").out == ""
    said = [line.split()[1:] for line in aos("events").out.splitlines()]
    assert said[0][0] == events[0]["type"]
    [ended] = [words for words in said if words[0] == "process.exited"]
    assert ended[3:] == ["cause=exited", "code=3"]
    assert aos("events", "--since", "yesterday", check=2).out == ""


def test_events_follow(aos: Installation) -> None:
    aos("ps")
    following = aos.start("events", "--follow", "-o", "json", stdin=subprocess.DEVNULL)
    aos("run", "--rm", "--name", "seen", "busybox:1", "-c", "true")
    assert following.stdout
    seen = json.loads(following.stdout.readline())
    assert seen["cursor"] >= 1
    following.terminate()
    following.communicate(timeout=20)


def test_df_and_prune(aos: Installation) -> None:
    aos("run", "--name", "done", "busybox:1", "-c", "true")
    sleeper(aos, "a")
    assert "KIND" in aos("df").out
    assert aos("df", "-o", "json").json
    refused = aos("prune", check=5)
    assert refused.err.startswith("aos prune: prune asks before it removes anything")
    assert aos("prune", "-f").out.splitlines()[-1].startswith("freed ")
    assert [agent["name"] for agent in aos("ps", "-a", "-o", "json").json] == ["a"]
    aos("run", "--rm", "busybox:1", "-c", "true")


@pytest.mark.parametrize("verb", ["stop", "kill", "rm", "wait", "inspect", "logs"])
def test_an_agent_that_does_not_exist(aos: Installation, verb: str) -> None:
    done = aos(verb, "absent", check=3)
    assert done.err.startswith(f"aos {verb}: ")
    assert "absent" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("verb", ["exec absent true", "attach absent"])
def test_an_agent_that_does_not_exist_where_the_code_is_the_agents(aos: Installation, verb: str) -> None:
    assert "absent" in aos(*verb.split(), check=125).err


def test_all_are_tried_and_the_first_failure_is_the_code(aos: Installation) -> None:
    sleeper(aos, "a")
    done = aos("kill", "absent", "a", check=3)
    assert done.out == "a\n"
    assert aos("wait", "a").out == "137\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kill", "-s", "TREM", "a"], "did you mean TERM?"),
        (["stop", "-t", "soon", "a"], "-t must be a duration"),
        (["stop"], "AGENT is missing"),
        (["logs", "--tail", "-5", "a"], "--tail must be a number of lines or all"),
        (["logs", "--since", "x", "a"], "--since must be a time"),
        (["ps", "-o", "yaml"], "table or json"),
    ],
)
def test_wrong_values(installation: Installation, words: list[str], said: str) -> None:
    """Refused before a daemon is even started."""
    assert said in installation(*words, check=2).err
    assert not installation.state.exists()


def test_prune_all_keeps_what_agents_run(aos: Installation) -> None:
    aos("run", "-d", "--name", "a", "busybox:1", "-c", "sleep 60")
    aos("prune", "-f", "--all")
    assert [entry["reference"] for entry in aos("packages", "ls", "-o", "json").json] == ["busybox:1"]
    aos("rm", "-f", "a")
    assert "packages: 1" in aos("prune", "-f", "--all").out.splitlines()
    assert aos("packages", "ls", "-o", "json").json == []
    sizes = aos("df", "-o", "json").json
    assert {sizes[kind]["count"] for kind in ("packages", "blobs", "unpacked layers", "build cache")} == {0}


def test_version_names_the_command_and_the_daemon(aos: Installation) -> None:
    ours = aos("version", "--client").out.strip()
    assert aos("version").out == f"{ours}\nnode not running\n"
    number = ours.removeprefix("aos ")
    assert aos("version", "-o", "json").json == {"aos": number, "node": None}
    aos("node", "start")
    assert aos("version").out == f"{ours}\nnode {number}\n"
    assert aos("version", "-o", "json").json == {"aos": number, "node": number}


def test_the_daemon_may_open_as_many_files_as_the_host_allows(aos: Installation) -> None:
    """It has a descriptor open for each sandbox, and the usual limit of whoever starts it is 1,024."""
    subprocess.run(
        ["prlimit", "--nofile=256:4096", *aos.command("node", "start")], env=aos.environment(), check=True
    )
    limits = Path(f"/proc/{aos.daemon()}/limits").read_text().splitlines()
    [files] = [line.split() for line in limits if line.startswith("Max open files")]
    assert files[3:5] == ["4096", "4096"]


def test_a_daemon_that_cannot_start_says_why(aos: Installation) -> None:
    in_the_way = aos.state / "kernel/kernel.sock"
    in_the_way.mkdir(parents=True)
    done = aos("ps", check=5)
    in_the_way.rmdir()
    assert done.err.startswith(f"aos ps: {aos.state}/kernel/kernel.sock: Is a directory\nhint: ")
