"""The life of agents: replicas, restart policies and their limits, hooks, health, stopping, pausing, updating."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fix_installation import end_process, requires

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_installation import Installation

pytestmark = pytest.mark.root

LOOP = "while :; do sleep 0.05; done"


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def build(aos: Installation, text: str, script: str = LOOP) -> None:
    """The package `it:1`: busybox with an entrypoint that runs a script, and further fields of an Agentfile."""
    context = aos.root.parent / "it"
    context.mkdir(exist_ok=True)
    (context / "Agentfile").write_text(
        "apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: it, version: 1.0.0}\nfrom: busybox:1\n"
        f"entrypoint: {{command: [/bin/sh, -c], args: ['{script}']}}\n{text}"
    )
    aos("build", "-t", "it:1", context)


def record(aos: Installation, name: str) -> dict[str, Any]:
    [found] = aos("inspect", name).json
    assert isinstance(found, dict)
    return found


def exits(aos: Installation, name: str) -> list[dict[str, Any]]:
    return [one["exit"] for one in record(aos, name)["processes"] if "exit" in one]


def test_replicas_live_and_die_by_themselves(aos: Installation) -> None:
    script = "echo replica $AOS_REPLICA on $(hostname); while [ ! -e /die ]; do sleep 0.05; done; exit 3"
    aos("run", "-d", "--name", "n", "--replicas", "3", "--restart", "on-failure", "busybox:1", "-c", script)
    until(lambda: aos("logs", "n").out.count("replica") == 3)
    assert sorted(aos("logs", "n").out.splitlines()) == [f"{n}| replica {n} on n-{n}" for n in (1, 2, 3)]
    assert aos("logs", "--replica", "2", "n").out == "replica 2 on n-2\n"
    assert re.search(r"Up [a-z0-9 ]+ 3/3", aos("ps").out)
    assert [one["name"] for one in aos("stats", "-o", "json", "n").json] == ["n/1", "n/2", "n/3"]
    aos("exec", "--replica", "2", "n", "touch", "/die")
    until(lambda: record(aos, "n")["restarts"] == 1)
    pids = [one["pid"] for one in record(aos, "n")["replica"]]
    assert (pids[0], pids[2]) == (1, 3) and pids[1] > 3
    [only] = exits(aos, "n")
    assert (only["pid"], only["code"]) == (2, 3)
    assert "replica 2" in only["tail"] and "replica 1" not in only["tail"]
    assert aos("logs", "--replica", "4", "n", check=3).err.startswith("aos logs: agent n has no replica 4")
    aos("stop", "-t", "0", "n")
    assert len(exits(aos, "n")) == 4
    assert aos("rm", "n").out == "n\n"
    until(lambda: not list((aos.root / "logs").iterdir()))


def test_one_replica_that_cannot_start_means_that_there_is_no_agent(aos: Installation) -> None:
    refused = aos("run", "-d", "--replicas", "2", "--entrypoint", "/missing", "busybox:1", check=127)
    assert "missing" in refused.err
    until(lambda: aos("ps", "-aq").out == "")
    assert aos("run", "-i", "--replicas", "2", "busybox:1", check=125).err.startswith("aos run: ")


def test_always_restarts_success_until_the_limit_is_reached(aos: Installation) -> None:
    limit = ("--restart", "always", "--restart-limit", "2/1m")
    run = aos("run", "--name", "a", *limit, "busybox:1", "-c", "echo once")
    assert run.out == "once\n" * 3
    assert "gave up" in aos("ps", "-a").out
    assert record(aos, "a")["gave_up"] == "it was restarted 2 times within 60 s, which is its limit"
    assert [event for event in aos("events").out.splitlines() if "agent.gave-up" in event]


def test_on_failure_with_a_number(aos: Installation) -> None:
    aos("run", "--name", "a", "--restart", "on-failure:1", "busybox:1", "-c", "exit 3", check=3)
    assert len(exits(aos, "a")) == 2
    assert aos("run", "--restart", "on-failure:0", "busybox:1", check=125).err.startswith(
        "aos run: --restart"
    )


def test_stopping_gives_the_package_s_time(aos: Installation) -> None:
    build(aos, "stopGracePeriod: 300ms\n", 'trap "" TERM; echo ready; ' + LOOP)
    aos("run", "-d", "--name", "a", "it:1")
    until(lambda: "ready" in aos("logs", "a").out)
    started = time.monotonic()
    aos("stop", "a")
    assert 0.25 < time.monotonic() - started < 8
    assert exits(aos, "a")[0]["signal"] == 9


def test_stopping_ends_a_start_that_hangs(aos: Installation) -> None:
    build(aos, "hooks: {preStart: {exec: 'echo here > /dev/null; sleep 100', timeout: 90s}}\n")
    starting = aos.start("run", "-d", "--name", "a", "it:1", stdin=subprocess.DEVNULL)
    until(lambda: "Created" in aos("ps").out)
    started = time.monotonic()
    stopping = aos("stop", "-t", "0.3", "a", check=3)
    assert "removed before it ran" in stopping.err
    assert time.monotonic() - started < 20
    assert b"the hook preStart of agent a failed" in starting.communicate(timeout=20)[1]
    until(lambda: aos("ps", "-aq").out == "")


def test_a_paused_agent_stands_still_and_can_be_stopped(aos: Installation) -> None:
    script = 'trap "exit 4" TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'
    aos("run", "-d", "--name", "a", "busybox:1", "-c", script)
    until(lambda: aos("logs", "a").out)
    assert aos("pause", "a").out == "a\n"
    before = aos("logs", "a").out
    aos.kill_daemon()
    assert "(paused)" in aos("ps").out
    assert aos("logs", "a").out == before
    assert "aos unpause a" in aos("exec", "a", "true", check=125).err
    aos("unpause", "a")
    until(lambda: aos("logs", "a").out != before)
    assert aos("unpause", "a", check=5).err.startswith("aos unpause: agent a is running, not paused")
    aos("pause", "a")
    aos("stop", "a")
    assert exits(aos, "a")[0]["code"] == 4


def test_update_holds_for_this_process_and_the_next(aos: Installation) -> None:
    aos("run", "-d", "--name", "a", "--pids", "50", "busybox:1", "-c", LOOP)
    [process] = aos("top", "-o", "json", "a").json[:1]
    assert (process["pid"], process["user"]) == (1, "0")
    assert aos("update", "--pids", "40", "--memory", "64m", "--restart", "always", "a").out == "a\n"
    found = record(aos, "a")
    assert found["restart"] == "always"
    limits = found["overrides"]["limits"]
    assert (limits["pids"], limits["memory"]) == (40, 64 << 20)
    files = [
        Path(directory, name)
        for directory, _, names in os.walk("/sys/fs/cgroup")  # where others' groups come and go meanwhile
        for name in {"pids.max", "memory.limit_in_bytes", "memory.max"}.intersection(names)
        if Path(directory).name == found["sandbox"]
    ]
    assert sorted(int(file.read_text()) for file in files) == [40, 64 << 20]
    assert aos("update", "a", check=2).err.startswith("aos update: there is nothing to change")


@pytest.mark.backends
@pytest.mark.parametrize("network", ["none", "bridge"])
def test_probes_reach_the_network_stack_of_gvisor(aos: Installation, network: str) -> None:
    requires("runsc")
    build(
        aos,
        "health: {http: {port: 8080, path: /x}, interval: 200ms}\nreadiness: {tcp: 8080, interval: 200ms}\n",
        "mkdir /www; touch /www/x; exec httpd -f -p 8080 -h /www",
    )
    aos("run", "-d", "--name", "a", "--runtime", "gvisor", "--network", network, "it:1")
    until(lambda: "(healthy)" in aos("ps").out)


@pytest.mark.parametrize("kind", ["http: {port: 8080, path: /x}", "exec: test -e /www/x"])
def test_what_is_unhealthy_is_restarted_with_that_cause(aos: Installation, kind: str) -> None:
    build(
        aos,
        f"restart: on-failure\nstopGracePeriod: 1\nhealth: {{{kind}, interval: 200ms, retries: 2}}\n"
        "hooks: {preStart: {exec: mkdir -p /www && touch /www/x}}\n",
        "httpd -f -p 8080 -h /www & wait",
    )
    aos("run", "-d", "--name", "a", "it:1")
    assert re.search(r"\((starting|healthy)\)", aos("ps").out)
    until(lambda: "(healthy)" in aos("ps").out)
    aos.kill_daemon()
    until(lambda: record(aos, "a")["replica"][0]["health"]["answers"])  # the next daemon goes on asking
    aos("exec", "a", "rm", "/www/x")
    until(lambda: record(aos, "a")["restarts"] == 1)
    [exit] = exits(aos, "a")
    assert exit["cause"] == "health"
    assert ("404" in exit["detail"]) is ("http" in kind)
    until(lambda: "(healthy)" in aos("ps").out)
    health = [line.split()[1] for line in aos("events").out.splitlines() if "process.health" in line]
    assert len(health) == 3  # healthy, unhealthy, healthy


def test_a_probe_that_hangs_is_cut_off_and_without_a_restart_only_told(aos: Installation) -> None:
    build(
        aos,
        "health: {exec: sleep 100, interval: 200ms, timeout: 300ms, retries: 1, onFailure: none}\n"
        "readiness: {tcp: 81, interval: 200ms, retries: 1}\n",
    )
    aos("run", "-d", "--name", "a", "it:1")
    until(lambda: "(unhealthy, not ready)" in aos("ps").out)
    [answer, *_] = record(aos, "a")["replica"][0]["health"]["answers"]
    assert "longer than 0.3 s" in answer["output"]
    assert answer["seconds"] < 5
    [ready, *_] = until(lambda: record(aos, "a")["replica"][0]["readiness"]["answers"])
    assert "port 81" in ready["output"]
    until(lambda: sum("sleep 100" in one["command"] for one in aos("top", "-o", "json", "a").json) <= 1)
    assert aos("ps", "-o", "json").json[0]["restarts"] == 0


def test_hooks_run_in_the_sandbox_in_their_order(aos: Installation) -> None:
    build(
        aos,
        "hooks:\n"
        "  postCreate: {exec: 'echo created > /order'}\n"
        "  preStart: [{exec: 'echo starting >> /order'}, {exec: 'exit 7', onFailure: ignore}]\n"
        "  postStart: {exec: 'echo started'}\n"
        "  preStop: {exec: [cat, /order]}\n",
        'trap "exit 0" TERM; echo main >> /order; ' + LOOP,
    )
    aos("run", "-d", "--name", "a", "it:1")
    until(lambda: "[postStart] started" in aos("logs", "a").out)
    aos("stop", "a")
    said = aos("logs", "a")
    assert "[preStart] failed: it ended with exit code 7" in said.err
    assert said.out.splitlines()[-3:] == ["[preStop] created", "[preStop] starting", "[preStop] main"]


def test_a_hook_that_fails_prevents_what_it_prepares(aos: Installation) -> None:
    build(aos, "hooks: {preStart: {exec: 'echo no room; exit 7'}}\n")
    refused = aos("run", "-d", "it:1", check=125)
    assert "the hook preStart of agent" in refused.err and "no room" in refused.err
    until(lambda: aos("ps", "-aq").out == "")
    build(aos, "hooks: {postStart: {exec: sleep 100, timeout: 200ms}}\nstopGracePeriod: 0\n")
    aos("run", "-d", "--name", "a", "it:1")
    aos("wait", "a")
    [exit] = exits(aos, "a")
    assert exit["cause"] == "policy"
    assert "postStart" in exit["detail"] and "longer than 0.2 s" in exit["detail"]


def test_hooks_on_the_host_need_the_owner_s_leave(aos: Installation) -> None:
    trace = aos.root.parent / "trace"
    events = (
        "preCreate",
        "postCreate",
        "preStart",
        "postStart",
        "preStop",
        "postStop",
        "preDelete",
        "postDelete",
    )
    lines = [
        f"  {event}: {{exec: 'echo $AOS_HOOK $AOS_AGENT_NAME >> {trace}', where: host}}" for event in events
    ]
    build(aos, "hooks:\n" + "\n".join(lines) + "\n", 'trap "exit 0" TERM; echo ready; ' + LOOP)
    refused = aos("run", "-d", "--name", "a", "it:1", check=125)
    assert "preCreate" in refused.err and "allow_host_hooks" in refused.err
    assert not trace.exists()
    aos("node", "stop")
    config = aos.root.parent / "config.toml"
    config.write_text("allow_host_hooks = true\n")
    aos.environ["AOS_CONFIG"] = str(config)  # type: ignore[index]
    aos("run", "-d", "--name", "a", "it:1")
    until(lambda: "ready" in aos("logs", "a").out and trace.read_text().count("\n") == 4)
    aos("stop", "a")
    aos("rm", "a")
    until(lambda: trace.read_text().count("\n") == len(events))
    assert [line.split() for line in trace.read_text().splitlines()] == [[event, "a"] for event in events]


def test_volumes_outlive_agents(aos: Installation) -> None:
    aos("run", "--rm", "-v", "notes:/data", "busybox:1", "-c", "echo kept > /data/note")
    aos("run", "-d", "--name", "a", "-v", "notes:/data:ro", "busybox:1", "-c", LOOP)
    assert aos("exec", "a", "cat", "/data/note").out == "kept\n"
    assert aos("volume", "ls").out.splitlines()[1].split()[0] == "notes"
    [found] = aos("volume", "inspect", "notes").json
    assert (found["agents"], Path(found["path"]).parent) == (["a"], aos.root / "volumes")
    assert "is used by a" in aos("volume", "rm", "notes", check=5).err
    aos("rm", "-f", "a")
    assert aos("volume", "rm", "notes").out == "notes\n"
    assert "no volume" in aos("volume", "rm", "notes", check=3).err
    assert not (aos.root / "volumes/notes").exists()
    assert "not a name" in aos("volume", "inspect", "..", check=2).err


def test_a_boot_of_the_host(aos: Installation) -> None:
    """All processes end at once, what is transient is gone, and the boot id is another: here, that of the journal is."""
    script = 'trap "exit 4" TERM; echo up; ' + LOOP
    for policy in ("never", "always", "unless-stopped"):
        for what in ("runs", "stopped"):
            aos("run", "-d", "--name", f"{what}-{policy}", "--restart", policy, "busybox:1", "-c", script)
    aos("stop", *(f"stopped-{policy}" for policy in ("never", "always", "unless-stopped")))
    aos.kill_daemon()
    ended = 0
    for kept in (aos.root / "sandboxes/oci").iterdir():
        init = int((kept / "pid").read_text())
        with contextlib.suppress(FileNotFoundError):
            conmon = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
            end_process(conmon)  # first, so that it writes no exit code
            end_process(init)
            ended += 1
    assert ended == 3
    shutil.rmtree(aos.state)
    with contextlib.closing(sqlite3.connect(aos.root / "node/journal.sqlite3")) as journal:
        changed = (
            "UPDATE events SET event = CAST(json_set(event, '$.boot', 'before') AS BLOB) WHERE agent = ''"
        )
        assert journal.execute(changed).rowcount == 1
        journal.commit()
    running = ["runs-always", "runs-unless-stopped", "stopped-always"]
    until(
        lambda: (
            sorted(one["name"] for one in aos("ps", "-o", "json").json if one["pid"] and one["running"])
            == running
        )
    )
    [lost] = exits(aos, "runs-never")
    assert (lost["cause"], lost["code"], lost["signal"]) == ("lost", None, None)
    assert "booted" in lost["detail"]
    assert exits(aos, "runs-always")[0]["cause"] == "lost"
    assert exits(aos, "stopped-always")[0]["code"] == 4
    assert "Lost" in aos("ps", "-a").out
