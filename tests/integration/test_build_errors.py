"""Bad input: each is told clearly, with its code, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fix_build import Builder

pytestmark = pytest.mark.root


def test_a_failing_step_shows_its_last_output_and_its_exit_code(builder: Builder) -> None:
    script = "for i in $(seq 100); do echo line $i; done; echo the cause >&2; touch /half; exit 7"
    context = builder.context({}, [{"run": "echo done > /before"}, {"run": script}])
    result = builder.build(context, check=10)
    message = result.err[result.err.index("aos build:") :]
    assert "failed with exit code 7" in message
    assert "    the cause" in message
    assert "    line 100" in message
    assert "    line 50\n" not in message
    assert builder.aos("packages", "inspect", "it:1.0.0", check=False).code == 3
    again = builder.build(context, check=10)
    assert "run echo done > /before: cached" in again.err


def test_a_command_that_is_not_there(builder: Builder) -> None:
    result = builder.build(builder.context({}, [{"run": ["/no/such/command"]}]), check=10)
    assert "could not start" in result.err
    assert "/no/such/command" in result.err


@pytest.mark.parametrize(
    "run",
    [
        ["/etc/passwd"],
        {"command": "true", "user": "nobody-knows"},
        {"command": "true", "user": "nobody-knows", "cache": [{"target": "/c"}]},
    ],
)
def test_a_command_that_cannot_be_started(builder: Builder, run: object) -> None:
    assert "could not start" in builder.build(builder.context({}, [{"run": run}]), check=10).err


def test_a_step_whose_command_is_killed(builder: Builder) -> None:
    result = builder.build(builder.context({}, [{"run": "sh -c 'kill -9 $$'; exit $?"}]), check=10)
    assert "killed by signal 9" in result.err


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ({"copy": {"src": "missing.txt", "dest": "/x"}}, 3, "missing.txt"),
        ({"copy": {"src": "../outside", "dest": "/x"}}, 2, "leads out of"),
        ({"copy": {"src": "out/outside", "dest": "/x"}}, 2, "leads out of"),
        ({"copy": {"src": "loop/x", "dest": "/x"}}, 2, "too many symbolic links"),
        ({"copy": {"src": "dir", "dest": "/x"}}, 2, "FIFO"),
        ({"copy": {"src": "file", "dest": "/bin/busybox/"}}, 2, "not a directory"),
        ({"copy": {"src": "tree", "dest": "/"}}, 2, "would replace the directory"),
        ({"copy": {"src": ["file", "other"], "dest": "/x"}}, 2, "end it with '/'"),
        ({"plugin": {"name": "nope"}}, 3, "debian"),
        ({"plugin": {"name": "debian", "with": {"suite": 7}}}, 2, "suite"),
        ({"install": {"pip": {"requirements": "missing.txt"}}}, 3, "missing.txt"),
        ({"install": {"pip": ["x"]}}, 5, "Python"),
        ({"install": {"apt": ["x"]}}, 5, "apt-get"),
    ],
)
def test_wrong_steps(builder: Builder, step: object, code: int, words: str) -> None:
    context = builder.context(
        {"file": "x", "other": "x", "out": "-> ..", "loop": "-> loop", "tree/bin": "x", "../outside": "x"},
        [step],
    )
    (context / "dir").mkdir()
    os.mkfifo(context / "dir/pipe")
    result = builder.build(context, check=code)
    assert words in result.err
    assert "hint:" in result.err
    assert "Traceback" not in result.err


def test_links_in_a_context_are_never_followed_out_of_the_image(builder: Builder) -> None:
    """A link that was copied first, and a file that is then copied through it, must stay in the image."""
    victim = builder.contexts / "victim"
    victim.mkdir()
    context = builder.context(
        {"first/escape": f"-> {victim}", "second/escape/file": "x"},
        [{"copy": {"src": ["first", "second"], "dest": "/app/"}}],
    )
    result = builder.build(context, check=2)
    assert "not a directory" in result.err
    assert list(victim.iterdir()) == []
    climbing = builder.context(
        {"first/escape": "-> ../../../../../../../../../../tmp", "file": "x"},
        [
            {"copy": {"src": "first", "dest": "/app/"}},
            {"copy": {"src": "file", "dest": "/app/escape/aos-test-file"}},
        ],
        name="climbing",
    )
    root = builder.unpack(climbing)
    assert (root / "tmp/aos-test-file").exists()


def test_an_absent_base_names_what_is_near(builder: Builder) -> None:
    result = builder.build(builder.context({}, [], base="busybx:1"), check=3)
    assert "busybx:1" in result.err
    assert "did you mean busybox:1" in result.err
    assert "layout" in builder.build(builder.context({}, [], base="oci:nowhere"), check=3).err


def test_a_context_or_an_agentfile_that_is_not_there(builder: Builder) -> None:
    assert "Agentfile" in builder.build(builder.contexts, check=3).err
    assert "nowhere" in builder.build(builder.contexts / "nowhere", check=3).err


def test_a_broken_ignore_file_is_named_with_its_line(builder: Builder) -> None:
    context = builder.context({".dockerignore": "ok\n[\n", "f": "x"}, [{"copy": {"src": "f", "dest": "/f"}}])
    assert ".dockerignore:2" in builder.build(context, check=2).err


@pytest.mark.parametrize("name", [".aosignore", "Agentfile.lock"])
def test_a_fifo_in_the_place_of_a_file_hangs_nothing(builder: Builder, name: str) -> None:
    context = builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/f"}}])
    os.mkfifo(context / name)
    result = builder.build(context, check=False)
    assert result.code in (2, 6), result.err
    assert f"{name}" in result.err
    assert "no regular file" in result.err


def test_a_lock_that_is_a_link_to_nowhere_is_not_taken_for_none(builder: Builder) -> None:
    context = builder.context({"Agentfile.lock": "-> ../locks/it.lock"}, [])
    assert "a link to nowhere" in builder.build(context, check=2).err
    builder.build(context, "--no-lock")


@pytest.mark.parametrize("missing", ["runc", "conmon", "mmdebstrap"])
def test_a_missing_tool_is_named_with_its_package(builder: Builder, missing: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for directory in [*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]:
        for name in ("sh", "readlink", "env", "setpriv", "unshare", "runc", "conmon", "mmdebstrap"):
            source = f"{directory}/{name}"
            if os.access(source, os.X_OK) and name != missing and not (tools / name).exists():
                (tools / name).symlink_to(source)
    step: object = {"run": "true > /x"}
    base = "busybox:1"
    if missing == "mmdebstrap":
        step, base = {"plugin": {"name": "debian", "with": {"suite": "bookworm"}}}, "scratch"
    context = builder.context({}, [step], base=base)
    environ = {**builder.aos.environment(), "PATH": str(tools)}
    done = subprocess.run(
        builder.aos.command("build", context), env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 5, done.stderr
    assert f"install {missing}" in done.stderr


def test_a_damaged_cache_entry_and_a_vanished_blob_are_built_again(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo 1 > /one"}])
    first = builder.build(context)
    for damage in ("", "{", "[]", '{"version": 99}'):
        for entry in (builder.aos.root / "build/cache").rglob("*.json"):
            entry.write_text(damage)
        again = builder.build(context)
        assert again.out == first.out
        assert "done in" in again.err


def test_a_full_disk_is_told_and_leaves_nothing(builder: Builder, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    try:
        context = builder.context(
            {"big": os.urandom(4 << 20)}, [{"copy": {"src": "big", "dest": "/big"}}], base="scratch"
        )
        environ = {**builder.aos.environment(), "AOS_ROOT": str(small / "root")}
        done = subprocess.run(
            builder.aos.command("build", context), env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 8, done.stderr
        assert "full" in done.stderr
        assert list((small / "root/build/work").iterdir()) == []
        assert list((small / "root/content/ingest").iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 10), (signal.SIGHUP, 10)]
)
def test_a_signal_ends_a_build_and_leaves_nothing(
    builder: Builder, number: signal.Signals, code: int
) -> None:
    context = builder.context({}, [{"run": "echo started; sleep 300"}])
    process = builder.aos.start("build", "--progress", "plain", context)
    _wait_for_output(process, b"| started")
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert time.monotonic() - began < 5
    assert b"Traceback" not in err
    assert builder.left_over() == []


def test_the_next_build_cleans_up_after_kill_9(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo started; sleep 300"}])
    process = builder.aos.start("build", "--progress", "plain", context)
    _wait_for_output(process, b"| started")
    process.kill()
    process.communicate(timeout=30)
    assert len(builder.left_over()) == 2
    assert not _mounted(builder.aos.root)
    builder.build(builder.context({}, [{"run": "true"}], name="next"))
    assert builder.left_over() == []


def _wait_for_output(process: subprocess.Popen[bytes], wanted: bytes) -> None:
    assert process.stderr
    for line in process.stderr:
        if wanted in line:
            return
    raise AssertionError(f"the build ended with {process.wait()} before it said {wanted!r}")


def _mounted(root: Path) -> bool:
    with Path("/proc/self/mountinfo").open() as mounts:
        return str(root) in mounts.read()


def test_a_directory_as_a_base_is_told_how_to_be_written(builder: Builder) -> None:
    done = builder.build(builder.context({}, [], base="./layout"), check=2)
    assert "hint: an OCI layout on disk is written oci:./layout\n" in done.err


@pytest.mark.parametrize("source", ["nosuch", "../outside", "fifo"])
def test_what_cannot_be_copied_is_told_with_its_step(builder: Builder, source: str) -> None:
    context = builder.context({}, [{"run": "true"}, {"copy": {"src": source, "dest": "/"}}])
    os.mkfifo(context / "fifo")
    err = builder.aos("build", context, check=False).err
    assert re.search(r"Agentfile:\d+:\d+: ", err.splitlines()[0]), err
