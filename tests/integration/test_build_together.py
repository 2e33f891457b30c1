"""Builds at the same time, vertices at the same time, and the end of all of them at a signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fix_installation import end_process

if TYPE_CHECKING:
    import subprocess

    from fix_build import Builder

pytestmark = pytest.mark.root

SOON = 8.0
"""Seconds. Two are asked for and usual; on a busy machine the suite only tells an end from a hang."""
STEPS = 4
SHARED = [{"run": f"echo executed-{number}; sleep 0.3; echo {number} > /{number}"} for number in range(STEPS)]


def _start(builder: Builder, context: Path, *words: str) -> subprocess.Popen[bytes]:
    return builder.aos.start("build", "--progress", "plain", *words, context)


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def _wait_for(process: subprocess.Popen[bytes], wanted: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if wanted.encode() in line:
            return
    raise AssertionError(f"the build ended with {process.wait()} before it said {wanted!r}")


def test_two_builds_of_one_thing_execute_each_step_once(builder: Builder) -> None:
    context = builder.context({}, SHARED)
    processes = [_start(builder, context, "-t", f"it:{name}") for name in "ab"]
    ended = [_ended(process) for process in processes]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert ended[0][1] == ended[1][1], "both have the same package"
    errors = ended[0][2] + ended[1][2]
    for number in range(STEPS):
        assert errors.count(f"| executed-{number}\n") == 1, errors
    assert "another build executes it" in errors
    assert list((builder.aos.root / "build/locks").iterdir()) == []


def test_who_waits_goes_on_when_the_other_is_killed(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo begun; sleep 2; echo 1 > /one"}])
    first = _start(builder, context)
    _wait_for(first, "| begun")
    second = _start(builder, context)
    _wait_for(second, "another build executes it")
    end_process(first.pid)
    first.communicate()
    code, _, err = _ended(second)
    assert code == 0
    assert "| begun" in err
    builder.build(builder.context({}, [{"run": "true > /x"}], name="next"))


def test_a_wait_for_another_build_ends_at_once_on_a_signal(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo begun; sleep 60"}])
    first = _start(builder, context)
    _wait_for(first, "| begun")
    second = _start(builder, context)
    _wait_for(second, "another build executes it")
    assert _stopped(second, signal.SIGINT) < 1
    assert _stopped(first, signal.SIGINT) < SOON


def test_equal_steps_of_two_stages_are_executed_once(builder: Builder) -> None:
    run = {"run": "echo executed; echo 1 > /one"}
    context = builder.context(
        {},
        [{"copy": {"from": name, "src": "/one", "dest": f"/{name}"}} for name in ("a", "b")],
        stages=[{"name": name, "from": "busybox:1", "steps": [run]} for name in ("a", "b")],
    )
    result = builder.build(context, "--jobs", "2")
    assert result.err.count("| executed\n") == 1


@pytest.mark.parametrize(("jobs", "seconds", "least", "most"), [("2", 5, 5, 9), ("1", 2, 4, 60)])
def test_independent_stages_take_the_time_of_one(
    builder: Builder, jobs: str, seconds: int, least: float, most: float
) -> None:
    """5.2 s on an idle machine (`make bench` measures); the bound leaves room for a busy one."""
    context = builder.context(
        {},
        [{"copy": {"from": name, "src": f"/{name}", "dest": "/"}} for name in ("a", "b")],
        stages=[
            {"name": name, "from": "busybox:1", "steps": [{"run": f"sleep {seconds}; echo > /{name}"}]}
            for name in ("a", "b")
        ],
    )
    builder.build(builder.context({}, [{"run": "true > /x"}], name="warm"))  # the base is unpacked
    began = time.monotonic()
    builder.build(context, "--jobs", jobs)
    assert least <= time.monotonic() - began <= most


def test_a_failure_lets_what_runs_end_and_keeps_it(builder: Builder) -> None:
    context = builder.context(
        {},
        [{"copy": {"from": name, "src": f"/{name}", "dest": "/"}} for name in ("bad", "good", "late")],
        stages=[
            {"name": "bad", "from": "busybox:1", "steps": [{"run": "sleep 0.5; echo the cause; exit 7"}]},
            {"name": "good", "from": "busybox:1", "steps": [{"run": "sleep 2; echo > /good"}]},
            {"name": "late", "from": "busybox:1", "steps": [{"run": "echo > /late"}]},
        ],
    )
    failed = builder.build(context, "--jobs", "2", check=10)
    assert "failed with exit code 7" in failed.err
    assert "    the cause" in failed.err
    again = builder.build(context, "--jobs", "2", check=10)
    assert "run sleep 2; echo > /good: cached" in again.err
    assert "run echo > /late: cached" not in again.err, "nothing was started after the failure"


def test_all_failures_are_told(builder: Builder) -> None:
    context = builder.context(
        {},
        [{"copy": {"from": name, "src": "/", "dest": "/"}} for name in ("one", "two")],
        stages=[
            {"name": "one", "from": "busybox:1", "steps": [{"run": "sleep 0.5; echo cause-one; exit 1"}]},
            {"name": "two", "from": "busybox:1", "steps": [{"run": "sleep 1.5; echo cause-two; exit 2"}]},
        ],
    )
    result = builder.build(context, "--jobs", "2", check=10)
    told = result.err[result.err.index("aos build:") :]
    assert told.index("cause-one") < told.index("cause-two")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM INT; echo begun; while :; do sleep 1; done",
        "echo begun; yes > /dev/null",
        "echo begun; yes | head -c 300000000",
    ],
    ids=["deaf", "busy", "loud"],
)
def test_steps_end_within_two_seconds_of_a_signal(
    builder: Builder, script: str, number: signal.Signals
) -> None:
    process = _start(builder, builder.context({}, [{"run": script}]))
    _wait_for(process, "| begun")
    assert _stopped(process, number) < SOON
    assert builder.left_over() == []


def test_a_plugins_command_on_the_host_ends_within_two_seconds(builder: Builder, tmp_path: Path) -> None:
    """The plugin `debian` calls mmdebstrap; here it is one that hears no signal."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "mmdebstrap").write_text("#!/bin/sh\ntrap '' TERM INT\necho begun\nwhile :; do sleep 1; done\n")
    (tools / "mmdebstrap").chmod(0o755)
    aos = type(builder.aos)(builder.aos.config, {"PATH": f"{tools}:{os.environ['PATH']}"})
    context = builder.context(
        {}, [{"plugin": {"name": "debian", "with": {"suite": "bookworm"}}}], base="scratch"
    )
    process = aos.start("build", "--progress", "plain", context)
    _wait_for(process, "| begun")
    assert _stopped(process, signal.SIGTERM) < SOON
    assert builder.left_over() == []


@pytest.mark.skipif(
    "COVERAGE_PROCESS_START" in os.environ and sys.version_info < (3, 12),
    reason="needs Python 3.12, or none that measures coverage: 3.11 stops no thread that is traced",
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_hashing_and_committing_end_within_two_seconds(builder: Builder, number: signal.Signals) -> None:
    """4 GiB that take no space: reading, compressing and storing them takes much longer than two seconds."""
    context = builder.context({}, [{"copy": {"src": "big", "dest": "/big"}}])
    with (context / "big").open("wb") as file:
        file.truncate(4 << 30)
    process = _start(builder, context)
    while _read_so_far(process) < 64 << 20:  # until it hashes: nothing is said before
        assert process.poll() is None
        time.sleep(0.01)
    assert _stopped(process, number) < SOON
    committing = builder.context({}, [{"run": "echo begun; dd if=/dev/urandom of=/big bs=1M count=600"}])
    process = _start(builder, committing)
    _wait_for(process, "| begun")
    upper = builder.aos.root / "build/work"
    ingest = builder.aos.root / "content/ingest"
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size > 1 << 20 for file in ingest.iterdir()):
        assert time.monotonic() < deadline, list(upper.rglob("*"))
        assert process.poll() is None
        time.sleep(0.01)
    assert _stopped(process, number) < SOON
    assert builder.left_over() == []
    assert list(ingest.iterdir()) == []


def _read_so_far(process: subprocess.Popen[bytes]) -> int:
    """Bytes (proc_pid_io(5))."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
    return int(fields["rchar"])


def _stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> float:
    """Seconds from the signal to the end of the process; a second signal on the way changes nothing."""
    began = time.monotonic()
    process.send_signal(number)
    again = threading.Timer(0.1, process.send_signal, (number,))
    again.start()
    _, err = process.communicate(timeout=30)
    seconds = time.monotonic() - began
    again.cancel()
    assert process.returncode == (130 if number is signal.SIGINT else 10), err
    assert b"Traceback" not in err
    return seconds
