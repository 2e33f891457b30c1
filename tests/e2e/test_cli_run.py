"""`aos run` against the real daemon and the real runtime: codes, streams, options, signals, a daemon that dies."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fix_installation import Installation

pytestmark = pytest.mark.root

SHELL = ("run", "--rm", "busybox:1", "-c")
"""The entrypoint is /bin/sh."""


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_the_exit_code_is_the_agents(aos: Installation, code: int) -> None:
    aos(*SHELL, f"exit {code}", check=code)


def test_a_signal_shows_as_a_shell_shows_it(aos: Installation) -> None:
    aos("run", "--rm", "--entrypoint", "/bin/sh", "busybox:1", "-c", "sh -c 'kill -9 $$'; exit $?", check=137)


def test_streams(aos: Installation) -> None:
    done = aos(*SHELL, "echo out; echo err >&2; echo more")
    assert (done.out, done.err) == ("out\nmore\n", "err\n")


def test_input_and_its_end(aos: Installation) -> None:
    assert aos("run", "--rm", "-i", "busybox:1", "-c", "cat; echo over", input="a\nb").out == "a\nbover\n"
    assert aos(*SHELL, "cat; echo over", input="not for it").out == "over\n"


def test_binary_input_comes_back_as_it_was(aos: Installation) -> None:
    data = os.urandom(2 << 20)
    process = aos.start("run", "--rm", "-i", "busybox:1", "-c", "cat")
    out, err = process.communicate(data, timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_a_hundred_megabytes_into_a_slow_reader(aos: Installation) -> None:
    size = 100 << 20
    process = aos.start(*SHELL, f"yes 0123456789abcde | head -c {size}; echo end >&2; exit 3")
    assert process.stdout
    assert process.stderr
    threading.Event().wait(0.3)  # nobody reads for a while
    whole, got = hashlib.sha256(), 0
    while data := os.read(process.stdout.fileno(), 1 << 20):
        whole.update(data)
        got += len(data)
    assert process.wait(60) == 3
    assert got == size
    assert whole.digest() == hashlib.sha256(b"0123456789abcde\n" * (size // 16)).digest()
    assert process.stderr.read() == b"end\n"
    process.stdout.close()
    process.stderr.close()
    if process.stdin:
        process.stdin.close()


def test_a_reader_that_leaves_ends_the_agent(aos: Installation) -> None:
    command = " ".join(aos.command("run", "--name", "yes", "busybox:1", "-c", "yes"))
    done = subprocess.run(
        ["bash", "-c", f"{command.replace('-c yes', '-c yes')} | head -n 2"],
        capture_output=True,
        text=True,
        env=aos.environment(),
        timeout=60,
        check=True,
    )
    assert done.stdout == "y\ny\n"
    assert aos("ps", "-o", "json").json == []


def test_arguments_and_entrypoint(aos: Installation) -> None:
    assert (
        aos("run", "--rm", "--entrypoint", "/bin/echo", "busybox:1", "a b", "--rm", "-c").out
        == "a b --rm -c\n"
    )


def test_environment(aos: Installation) -> None:
    with_ours = type(aos)(aos.config, {"OURS": "from us"})
    script = 'echo "$A|$OURS|${ABSENT-unset}"'
    assert with_ours(
        "run", "--rm", "-e", "A=x=y z", "-e", "OURS", "--env=ABSENT", "busybox:1", "-c", script
    ).out == ("x=y z|from us|unset\n")


def test_mounts(aos: Installation, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("hello\n")
    (tmp_path / "one").write_text("single\n")
    script = "cat /data/file /one; echo no > /data/file; echo yes > /rw/made"
    done = aos(
        "run", "--rm", "-v", "./data:/data:ro", "-v", "./one:/one:ro", "-v", f"{tmp_path}:/rw", "busybox:1", "-c", script,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.out == "hello\nsingle\n"
    assert "ead-only" in done.err
    assert (tmp_path / "made").read_text() == "yes\n"
    assert (tmp_path / "data/file").read_text() == "hello\n"


def test_limits_and_host_name(aos: Installation) -> None:
    done = aos(
        "run", "--rm", "--hostname", "h1", "--memory", "64m", "--cpus", "0.5", "--pids", "20", "busybox:1", "-c",
        "hostname; for i in $(seq 40); do sleep 5 & done 2>&1 | grep -c fork; true",
    )  # fmt: skip
    assert done.out.splitlines()[0] == "h1"


def test_out_of_memory_is_said(aos: Installation) -> None:
    done = aos(
        "run", "--rm", "--memory", "16m", "--entrypoint", "/bin/dd", "busybox:1", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1",
        check=137,
    )  # fmt: skip
    assert "aos run: the agent ran out of memory" in done.err
    # conmon leaves a file named oom in its working directory: not among the unpacked layers.
    assert {len(path.name) for path in (aos.root / "content/snapshots").iterdir()} == {24}
    aos("run", "-d", "--memory", "16m", "--name", "m", "--entrypoint", "/bin/sleep", "busybox:1", "1000")
    aos("exec", "m", "/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", check=137)
    assert not Path("/oom").exists()
    aos("rm", "-f", "m")
    aos("prune", "-f")


def test_network_none_has_only_loopback(aos: Installation) -> None:
    assert aos(*SHELL, "ls /sys/class/net 2>/dev/null || ip -o link | wc -l").out.strip() in ("lo", "1")


def test_a_working_directory_that_the_image_lacks_can_be_entered(aos: Installation, tmp_path: Path) -> None:
    (tmp_path / "Agentfile").write_text(
        "apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: it, version: 1.0.0}\nfrom: busybox:1\n"
        "config: {workDir: /not/there, user: nobody}\nentrypoint: {command: [/bin/sh]}\n"
    )
    aos("build", "-q", tmp_path)
    assert (
        aos("run", "--rm", "it:1.0.0", "-c", "pwd; ls -ld . | cut -c1-10").out == "/not/there\ndrwxr-xr-x\n"
    )


def test_detached(aos: Installation) -> None:
    agent = aos("run", "-d", "--name", "web", "busybox:1", "-c", "echo up; sleep 100").out.strip()
    assert len(agent) == 12
    assert aos("ps", "-q").out == f"{agent}\n"
    aos("rm", "-f", "web")


def test_rm_leaves_no_record(aos: Installation) -> None:
    aos(*SHELL, "exit 3", check=3)
    assert aos("ps", "-a", "-q").out == ""


def test_several_are_removed_at_once_and_one_that_is_named_twice_once(aos: Installation) -> None:
    for name in ("one", "other"):
        aos("run", "-d", "--name", name, "busybox:1", "-c", "exec sleep 1000")
    assert aos("rm", "--force", "one", "other", "one").out.split() == ["one", "other"]
    assert aos("ps", "-a", "-q").out == ""


def test_without_rm_the_record_stays(aos: Installation) -> None:
    aos("run", "--name", "done", "busybox:1", "-c", "exit 3", check=3)
    (record,) = aos("ps", "-a", "-o", "json").json
    assert (record["name"], record["status"], record["exit"]["shell_code"]) == ("done", "exited", 3)


def test_dry_run_starts_nothing(aos: Installation) -> None:
    spec = aos("run", "--dry-run", "-e", "A=1", "--memory", "64m", "busybox:1", "-c", "true").json
    assert spec["process"]["args"] == ["/bin/sh", "-c", "true"]
    assert spec["limits"]["memory"] == 64 << 20
    assert aos("ps", "-a", "-q").out == ""


def test_restart_on_failure_shows_the_output_of_every_process(aos: Installation, tmp_path: Path) -> None:
    done = aos(
        "run", "--restart", "on-failure", "-v", f"{tmp_path}:/data", "busybox:1", "-c",
        "echo x >> /data/count; echo run $(wc -l < /data/count); [ $(wc -l < /data/count) -ge 3 ]",
    )  # fmt: skip
    assert done.out == "run 1\nrun 2\nrun 3\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(aos: Installation, signum: signal.Signals) -> None:
    name = signum.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    process = aos.start(*SHELL, script, stdin=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signum)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == (f"got {name}\n".encode(), b"", 9)


def test_a_package_that_restarts_is_shown_as_one_that_was_asked_to(aos: Installation, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    script = "echo x >> /data/count; echo run $(wc -l < /data/count); [ $(wc -l < /data/count) -ge 3 ]"
    (tmp_path / "Agentfile").write_text(
        "apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: again, version: 1.0.0}\nfrom: busybox:1\n"
        f"restart: on-failure\nentrypoint: {{command: [/bin/sh, -c, '{script}']}}\n"
    )
    aos("build", tmp_path)
    volume = f"{tmp_path}/data:/data"
    assert aos("run", "-v", volume, "again:1.0.0").out == "run 1\nrun 2\nrun 3\n"
    (tmp_path / "data/count").unlink()
    assert aos("run", "--rm", "-v", volume, "again:1.0.0", check=1).out == "run 1\n"
    assert aos("run", "-i", "-v", volume, "again:1.0.0", check=1).out == "run 2\n"


@pytest.mark.parametrize("script", ["echo try; exit 3", "echo try; exec sleep 1000"])
def test_a_signal_stops_an_agent_that_would_be_started_again(aos: Installation, script: str) -> None:
    process = aos.start("run", "--restart", "on-failure", "busybox:1", "-c", script, stdin=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdout.readline() == b"try\n"
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        threading.Event().wait(0.1)
    process.communicate(timeout=30)
    assert process.returncode in (3, 137)
    assert aos("ps", "-q").out == ""


def test_three_interrupts_kill_what_does_not_listen(aos: Installation) -> None:
    process = aos.start(
        *SHELL, "trap '' INT; echo ready; while :; do sleep 0.05; done", stdin=subprocess.DEVNULL
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        threading.Event().wait(0.1)
    process.communicate(timeout=30)
    assert process.returncode == 137


@pytest.mark.parametrize("remove", [False, True])
def test_the_code_is_right_when_the_daemon_dies_meanwhile(aos: Installation, remove: bool) -> None:
    options = ["--rm"] if remove else []
    process = aos.start("run", *options, "-i", "busybox:1", "-c", "echo ready; read line; echo $line; exit 5")
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    aos.kill_daemon()
    out, err = process.communicate(b"on\n", timeout=30)
    assert (out, err, process.returncode) == (b"on\n", b"", 5)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["absent:1"], 125, "aos run: "),
        (["BAD REFERENCE"], 125, "aos run: "),
        (["--memory", "lots", "busybox:1"], 125, "--memory must be a size"),
        (["--pids", "0", "busybox:1"], 125, "--pids must be a whole number"),
        (["--cpus", "x", "busybox:1"], 125, "--cpus must be a number of CPUs"),
        (["--network", "bridgee", "busybox:1"], 125, "no network mode 'bridgee'"),
        (["--runtime", "absent", "busybox:1"], 125, "absent"),
        (["--name", "Bad Name", "busybox:1"], 125, "name"),
        (["-v", "/nowhere/at/all:/x", "busybox:1"], 125, "/nowhere/at/all: No such file"),
        (["-e", "=x", "busybox:1"], 125, "-e must be KEY=VALUE"),
        (["--rm", "--restart", "on-failure", "busybox:1"], 125, "exclude each other"),
        (["-it", "busybox:1"], 125, "-t with -i needs a terminal"),
        (["--entrypoint", "/bin/absent", "busybox:1"], 127, "/bin/absent"),
        (
            ["--entrypoint", "/etc/passwd", "busybox:1"],
            126,
            "/etc/passwd cannot be executed: permission denied\nhint",
        ),
        (["--memory", "1", "busybox:1"], 125, "the kernel refuses these limits"),
        (["--memory", "99999999999t", "busybox:1"], 125, "the kernel refuses these limits"),
        (["--cpus", "99999999999", "busybox:1"], 125, "the kernel refuses these limits"),
        (["--pids", "99999999999", "busybox:1"], 125, "the kernel refuses these limits"),
        (
            ["-v", "/usr/share:/etc/passwd", "busybox:1"],
            125,
            "at /etc/passwd: not a directory\nhint",
        ),
        (["-v", "/usr/share:/proc", "busybox:1"], 125, "nothing can be mounted at '/proc'"),
        (["-v", "/etc:/x", "busybox:1"], 125, "the host's own"),
    ],
)
def test_what_cannot_run(aos: Installation, words: list[str], code: int, said: str) -> None:
    done = aos("run", *words, check=code)
    assert said in done.err
    assert "Traceback" not in done.err
    assert aos("ps", "-q").out == ""


def test_a_name_in_use(aos: Installation) -> None:
    aos("run", "-d", "--name", "web", "busybox:1", "-c", "sleep 100")
    done = aos("run", "--name", "web", "busybox:1", "-c", "true", check=125)
    assert "web" in done.err
    assert "hint: " in done.err


def test_words_that_are_not_utf_8(aos: Installation) -> None:
    done = subprocess.run(
        [*(os.fsencode(word) for word in aos.command("run", "busybox:1", "-c")), b"\xff"],
        env=aos.environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 125
    assert b"UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_errors_as_json(aos: Installation) -> None:
    done = aos("packages", "inspect", "absent:1", "-o", "json", check=False)
    assert json.loads(done.err)["error"]["kind"] == "NotFound"
