"""What a build says while it works, as a person, a log and a program see it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fix_build import Builder

pytestmark = pytest.mark.root


def two_stages(builder: Builder, pause: str = "") -> Path:
    """A build of two stages that do not need each other; `pause` comes before each writes its file."""
    return builder.context(
        steps=[
            {"copy": {"from": "first", "src": "/one", "dest": "/one"}},
            {"copy": {"from": "second", "src": "/two", "dest": "/two"}},
        ],
        stages=[
            {"name": "first", "from": "busybox:1", "steps": [{"run": f"echo one; {pause} echo 1 >/one"}]},
            {
                "name": "second",
                "from": "busybox:1",
                "steps": [{"run": f"printf '\\033[2J'; {pause} echo 2 >/two"}],
            },
        ],
    )


def test_json_events_of_a_build(builder: Builder) -> None:
    context = two_stages(builder)
    done = builder.aos("build", "--progress", "json", context)
    events = [json.loads(line) for line in done.err.splitlines()]
    assert done.out.startswith("sha256:")
    planned = events[0]["vertices"]
    assert [vertex["kind"] for vertex in planned] == ["base", "run", "run", "copy", "copy"]
    assert [vertex["parents"] for vertex in planned] == [[], [1], [1], [1, 2], [3, 4]]
    assert {"event": "output", "vertex": 2, "line": "one"}.items() <= {
        key: value
        for event in events
        if event["event"] == "output" and event["vertex"] == 2
        for key, value in event.items()
    }.items()
    for vertex in (2, 3, 4, 5):
        (finished,) = [one for one in events if one["event"] == "finished" and one["vertex"] == vertex]
        (started,) = [one for one in events if one["event"] == "started" and one["vertex"] == vertex]
        assert finished["time"] >= started["time"]
        assert finished["size"] > 0
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert (events[-1]["event"], events[-1]["ok"], events[-1]["executed"]) == ("ended", True, 4)
    again = [
        json.loads(line) for line in builder.aos("build", "--progress=rawjson", context).err.splitlines()
    ]
    saved = {one["vertex"]: one["seconds_saved"] for one in again if one["event"] == "cached"}
    assert set(saved) == {1, 2, 3, 4, 5}
    assert saved[1] == 0 < saved[2]
    assert again[-1]["seconds_saved"] == pytest.approx(sum(saved.values()), abs=0.01)


def test_every_line_is_json_also_when_it_fails(builder: Builder) -> None:
    context = builder.context(steps=[{"run": "echo why; exit 3"}])
    done = builder.aos("build", "--progress", "json", context, check=10)
    *events, error = [json.loads(line) for line in done.err.splitlines()]
    assert [event["event"] for event in events[-2:]] == ["failed", "ended"]
    assert events[-1]["ok"] is False
    assert (error["error"]["code"], error["exit_code"]) == ("step-failed", 10)


def test_plain_lines_say_vertex_and_time_and_the_totals(builder: Builder) -> None:
    context = two_stages(builder)
    lines = builder.build(context).err.splitlines()
    assert all(re.match(r"#[1-5] \d+\.\d\d ", line) for line in lines[:-2])
    assert any(re.fullmatch(r"#2 [\d.]+ \| one", line) for line in lines)
    assert "\x1b" not in "".join(lines)
    assert re.fullmatch(r"4 executed in [\d.]+ s", lines[-1])
    assert re.match(r"4 cached in [\d.]+ s", builder.build(context).err.splitlines()[-1])
    assert builder.build(context, "-q").err == ""


def test_the_last_output_of_a_failed_step_does_nothing_to_the_terminal(builder: Builder) -> None:
    context = builder.context(steps=[{"run": "printf 'bad\\033]0;title\\007\\033[2J\\n'; exit 1"}])
    shown = builder.build(context, check=10).err
    assert "\x1b" not in shown and "\x07" not in shown
    assert "    bad\n" in shown


def test_a_terminal_gets_the_live_display(builder: Builder) -> None:
    context = two_stages(builder, pause="sleep 1;")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        builder.aos.command("build", context),
        env=builder.aos.environment() | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    try:
        while data := os.read(master, 65536):
            written += data
    except OSError:  # the other side is closed
        pass
    os.close(master)
    assert process.wait(30) == 0
    shown = written.decode()
    assert "\x1b[2J" not in shown, "the step's own sequence"
    shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown)
    assert "│ one" in shown
    assert "2 running" in shown
    lines = [line.strip("\r") for line in shown.split("\r\n") if line]
    ended = [line.split("] ")[0] for line in lines if line.startswith("✓")]
    assert list(dict.fromkeys(reversed(ended)))[::-1] == [
        "✓ [first",
        "✓ [first 1/1",
        "✓ [second 1/1",
        "✓ [1/2",
        "✓ [2/2",
    ]
    assert lines[-1].startswith("4 executed in")
