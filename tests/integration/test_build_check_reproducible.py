"""`aos build --check-reproducible`: a second build elsewhere, the first screen of what differs, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fix_build import Builder
    from fix_python import Python

pytestmark = pytest.mark.root

CHECK = "--check-reproducible"


def test_a_package_that_is_the_same_twice(builder: Builder) -> None:
    context = builder.context(
        {"b": "x", "a/c": "y", "a/link": "-> c"},
        [{"copy": {"src": ".", "dest": "/src/"}}, {"run": "ls -l /src > /dev/null && umask > /umask"}],
        stages=[{"name": "unneeded", "from": "scratch", "steps": []}],
    )
    known = builder.build(context).out
    done = builder.build(context, CHECK)
    assert done.out == known
    assert "again: [2/2] run ls" in done.err, "everything is executed, whatever is cached"
    assert f"reproducible: both builds gave {known.strip()}" in done.err
    assert len(builder.aos("packages", "ls", "-o", "json").json) == 2, "the second build gives no names"


def test_what_differs_is_named_with_its_step_and_content(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo same > /same; mkdir /o; echo $(date +%s) > /o/stamp"}])
    done = builder.build(context, CHECK, check=5)
    lines = done.err.splitlines()
    (at,) = [number for number, line in enumerate(lines) if "/o/stamp: content: " in line]
    assert "[run echo same > /same" in lines[at]
    before, after = (int(line.strip()[1:]) for line in lines[at + 1 : at + 3])
    assert before < after
    assert not [line for line in lines if line.strip().startswith("/same")]
    assert "hint: `run echo same" in done.err
    assert "SOURCE_DATE_EPOCH" in done.err
    assert builder.aos("packages", "inspect", "it:1.0.0").code == 0, "the first package is there"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("touch /$(head -c 8 /dev/urandom | md5sum | head -c 32)", "only before"),
        ("ln -s $(date +%s) /link", "link: "),
        ("nproc > /cpus", "content: "),
        ("touch /f && chown $(nproc) /f", "owner: "),
        ("touch /f && chmod 70$(nproc) /f", "mode: "),
    ],
)
def test_why_a_file_differs(builder: Builder, command: str, why: str) -> None:
    if "nproc" in command and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    assert why in builder.build(builder.context({}, [{"run": command}]), CHECK, check=5).err


def test_the_step_is_named_that_gave_something_else_for_the_same_inputs(builder: Builder) -> None:
    """Not what follows from it; also when no file of the package shows it, but a cache key that it tells."""
    made = {"name": "made", "from": "busybox:1", "steps": [{"run": "date +%s > /log && echo x > /x"}]}
    context = builder.context(
        {}, [{"copy": {"from": "made", "src": "/x", "dest": "/x"}}, {"run": "cat /x > /y"}], stages=[made]
    )
    err = builder.build(context, CHECK, check=5).err
    assert "/log: content: 11 bytes -> 11 bytes" in err
    assert "[made: run date +%s > /log && echo x > /x]" in err
    assert "/y" not in err.partition("built again, sha256")[2]


def test_a_step_that_sometimes_changes_nothing_is_named(builder: Builder) -> None:
    context = builder.context(
        {}, [{"run": "test $(($(nproc) % 2)) = 0 || echo > /odd"}, {"run": "echo x > /x"}]
    )
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    err = builder.build(context, CHECK, check=5).err
    assert "what the step gave: layers: nothing -> a layer   [run test" in err
    assert "/x: " not in err


def test_an_index_that_moves_on_is_told_by_the_packages_that_differ(python: Python) -> None:
    python.offer("one", "1.0", "two>=1")
    python.offer("two", "1.0")
    context = python.context({}, [{"install": {"pip": ["one"]}}], base="python:1")
    python.build(context)
    python.offer("two", "1.1")
    done = python.build(context, CHECK, check=5)
    assert "python package two: 1.0 -> 1.1" in done.err
    assert "hint: an index or a mirror has moved on between the builds: `aos lock`" in done.err
    error = json.loads(
        python.aos("build", CHECK, "--progress", "json", context, check=5).err.splitlines()[-1]
    )["error"]
    assert error["code"] == "not-reproducible"
    assert error["subject"]["software"] == ["python package two: 1.0 -> 1.1"]
    assert {one["step"] for one in error["subject"]["differences"]} == {"install pip one"}


def test_what_a_lock_names_is_the_same_twice_also_when_the_index_has_gone(python: Python) -> None:
    python.offer("one", "1.0")
    context = python.context({}, [{"install": {"pip": ["one"]}}], base="python:1")
    python.aos("lock", context)
    python.withdraw("one", "1.0")
    python.offer("one", "2.0")
    assert "reproducible: both builds gave" in python.build(context, CHECK).err


def test_a_base_beside_the_context_is_found(builder: Builder) -> None:
    layout = builder.layout(builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/f"}}], name="base"))
    context = builder.context({}, [{"run": "test -e /f"}], base=f"oci:../{layout.name}", name="child")
    assert "reproducible: " in builder.build(context, CHECK).err


def test_a_pipe_as_a_secret_is_refused(builder: Builder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    context = builder.context({}, [{"run": {"command": "true", "secrets": ["s"]}}])
    done = builder.build(context, CHECK, "--secret", f"id=s,src={tmp_path / 'pipe'}", check=2)
    assert "two builds" in done.err


def test_a_second_build_that_fails_says_that_it_is_the_second(builder: Builder) -> None:
    context = builder.context({}, [{"run": {"command": "exit $C", "secrets": [{"id": "C", "env": "C"}]}}])
    for code in "03":  # the first one is cached
        builder.aos.environ["C"] = code  # type: ignore[index]
        done = builder.build(context, CHECK, "--secret", "id=C,env=C", check=10 * (code != "0"))
    assert "when it was built again, step [1/1] run exit $C" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 10), (signal.SIGKILL, -9)])
def test_a_check_that_is_ended_leaves_nothing(builder: Builder, number: signal.Signals, code: int) -> None:
    """A secret's value is in no key: the first build is cached, the second one sleeps."""
    step = {"command": "sleep $NAP", "secrets": [{"id": "NAP", "env": "NAP"}]}
    context = builder.context({}, [{"run": step}])
    secret = ("--secret", "id=NAP,env=NAP")
    builder.aos.environ["NAP"] = "0"  # type: ignore[index]
    builder.build(context, *secret)
    builder.aos.environ["NAP"] = "1000"  # type: ignore[index]
    process = builder.aos.start("build", "-q", CHECK, *secret, context)
    sandboxes, deadline = builder.aos.root / "sandboxes/oci", time.monotonic() + 60
    while not list(sandboxes.glob("build-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    if number == signal.SIGKILL:
        builder.build(builder.context({}, [{"run": "true"}], name="next"))  # sweeps
    assert builder.left_over() == []
    assert list(sandboxes.glob("build-*")) == []
