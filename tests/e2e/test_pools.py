"""Pools as a person uses them, on the real runtime, and under `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from traces import Traces

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_installation import Installation

pytestmark = pytest.mark.root

TELL = 'hostname; grep -w "$(hostname)" /etc/hosts | wc -l; read line && echo "got $line"; exit 7'


def waiting(aos: Installation) -> set[str]:
    """The sandboxes that are no agent's, as the disk has them."""
    return {path.name for path in aos.root.glob("sandboxes/*/*-0") if not path.name.startswith(".")}


def eventually(what: str, holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_run_takes_what_waits_and_is_as_any_other(aos: Installation) -> None:
    aos("pool", "set", "--size", "2", "--wait", "-i", "-e", "A=1", "busybox:1", "-c", TELL)
    before = waiting(aos)
    assert len(before) == 2
    [pool] = aos("pool", "ls", "-o", "json").json
    assert (pool["ready"], pool["runtime"], pool["problem"]) == (2, "oci", "")
    assert pool["memory_bytes"] > 0 and pool["pids"] >= 2
    assert pool["run"] == {"args": ["-c", TELL], "env": {"A": "1"}, "stdin": True}
    ran = aos("run", "-i", "--name", "bob", "-e", "A=1", "busybox:1", "-c", TELL, input="word\n", check=7)
    assert ran.out == "bob\n1\ngot word\n"
    [record] = aos("inspect", "bob").json
    sandbox = f"{record['agent']}-0"
    assert sandbox in before
    assert (record["exit"]["cause"], record["exit"]["code"]) == ("exited", 7)
    assert record["exit"]["tail"].endswith("got word")
    assert aos("logs", "bob").out == ran.out
    events = [json.loads(line) for line in aos("events", "-o", "json").out.splitlines()]
    mine = [one["type"] for one in events if one["agent"] == record["agent"]]
    assert mine == ["agent.created", "process.spawned", "process.started", "process.exited"]
    other = aos("run", "-i", "--rm", "--name", "jim", "-e", "A=2", "busybox:1", "-c", TELL, check=7)
    assert other.out == "jim\n1\n"  # not out of the pool: the first one's variable is not its own
    assert aos("pool", "ls", "-o", "json").json[0]["taken"] == 1
    eventually("it is refilled", lambda: len(waiting(aos) - {sandbox}) == 2)
    assert sandbox not in waiting(aos) - before
    assert aos("pool", "rm", "busybox:1").out == f"{pool['pool']}\n"
    eventually("it is emptied", lambda: waiting(aos) == {sandbox})


def test_an_agent_out_of_a_pool_is_adopted(aos: Installation) -> None:
    aos("pool", "set", "-n", "1", "--wait", "busybox:1", "-c", "sleep 1000")
    [sandbox] = waiting(aos)
    agent = aos("run", "-d", "--name", "a", "busybox:1", "-c", "sleep 1000").out.strip()
    assert sandbox == f"{agent}-0"
    old = aos.kill_daemon()
    assert aos("exec", "a", "hostname").out == "a\n"
    assert aos.daemon() != old
    assert aos("stop", "--time", "0", "a").code == 0
    assert aos("inspect", "a").json[0]["exit"]["cause"] == "signaled"


def test_what_waited_when_the_daemon_was_killed_is_removed(aos: Installation) -> None:
    aos("node", "start")
    clean = Traces.of(aos.config)
    aos("pool", "set", "-n", "3", "--wait", "busybox:1", "-c", "echo ran")
    before = waiting(aos)
    aos.kill_daemon()
    assert waiting(aos) == before
    aos("pool", "set", "-n", "3", "--wait", "busybox:1", "-c", "echo ran")  # by the next daemon
    eventually("the old ones are gone", lambda: not waiting(aos) & before)
    assert len(waiting(aos)) == 3
    aos("pool", "rm", "busybox:1")
    eventually("all are gone", lambda: not waiting(aos))
    Traces.of(aos.config).settle(aos.config, clean)
    assert aos("ps", "-a", "-o", "json").json == []


@pytest.mark.parametrize("moment", ["before-journal", "after-journal", "after-create", "after-start"])
def test_a_kill_between_the_pool_and_the_start(aos: Installation, moment: str) -> None:
    """Nothing runs that the journal does not know; what it knows has its true end."""
    aos("node", "start")  # whose first entry is the boot
    aos("node", "stop")
    doomed = replace(aos, environ={"AOS_FAILPOINT": moment})
    doomed("pool", "set", "-n", "1", "--wait", "busybox:1", "-c", "echo ran; sleep 1000")
    assert len(waiting(aos)) == 1
    doomed("run", "-d", "--name", "a", "busybox:1", "-c", "echo ran; sleep 1000", check=False)
    agents = {one["name"]: one for one in aos("ps", "-a", "-o", "json").json}
    eventually("the pool is full again", lambda: aos("pool", "ls", "-o", "json").json[0]["ready"] == 1)
    if "a" in agents and agents["a"]["status"] == "exited":
        assert agents["a"]["exit"]["cause"] == "lost"
        assert aos("logs", "a").out == ""
    elif "a" in agents:
        assert agents["a"]["status"] == "running"
    assert (agents.get("a", {}).get("status") == "running") is (moment == "after-start")


def test_the_end_of_the_daemon_or_of_the_package_empties_it(aos: Installation) -> None:
    aos("pool", "set", "-n", "2", "--wait", "busybox:1", "-c", "true")
    aos("node", "stop")
    assert waiting(aos) == set()
    aos("pool", "set", "-n", "2", "--wait", "busybox:1", "-c", "true")
    aos("packages", "rm", "busybox:1")
    [pool] = aos("pool", "ls", "-o", "json").json
    assert (pool["ready"], pool["digest"]) == (0, None)
    eventually("it is emptied", lambda: not waiting(aos))
    assert aos("pool", "rm", "none", check=3).err


def test_a_sandbox_that_was_ended_by_hand_is_replaced(aos: Installation) -> None:
    aos("pool", "set", "-n", "1", "--wait", "busybox:1", "-c", "echo well")
    [first] = waiting(aos)
    record = json.loads((aos.root / "sandboxes" / "oci" / first / "sandbox.json").read_text())
    os.kill(record["conmon"], signal.SIGKILL)
    eventually("another waits", lambda: waiting(aos) and first not in waiting(aos))
    assert aos("run", "--rm", "busybox:1", "-c", "echo well").out == "well\n"
