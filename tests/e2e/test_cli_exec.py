"""`aos exec` and `aos attach`, and what a terminal makes of them (and of run)."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_installation import Installation

pytestmark = pytest.mark.root


@pytest.fixture
def agent(aos: Installation) -> Installation:
    """`aos`, with an agent `a` that runs."""
    aos("run", "-d", "--name", "a", "-e", "FROM=run", "busybox:1", "-c", "sleep 1000")
    return aos


def test_codes(agent: Installation) -> None:
    agent("exec", "a", "true")
    agent("exec", "a", "sh", "-c", "exit 7", check=7)
    agent("exec", "a", "sh", "-c", "kill -9 $$", check=137)


@pytest.mark.parametrize(("command", "code"), [("/bin/absent", 127), ("/etc/passwd", 126)])
def test_what_cannot_run(agent: Installation, command: str, code: int) -> None:
    done = agent("exec", "a", command, check=code)
    assert done.err.startswith("aos exec: ")
    assert "Traceback" not in done.err


def test_streams_input_and_settings(agent: Installation) -> None:
    done = agent("exec", "a", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")
    assert agent("exec", "-i", "a", "cat", input="a\nb").out == "a\nb"
    assert agent("exec", "a", "cat", input="not for it").out == ""
    assert agent("exec", "-e", "A=1", "-e", "B=x y", "a", "sh", "-c", "echo $A $B $FROM").out == "1 x y run\n"
    assert agent("exec", "-w", "/etc", "a", "pwd").out == "/etc\n"
    assert agent("exec", "-u", "nobody", "a", "id", "-u").out == "65534\n"
    assert agent("exec", "-u", "1:2", "a", "sh", "-c", "echo $(id -u) $(id -g)").out == "1 2\n"
    assert agent("exec", "a", "echo", "-i", "--help").out == "-i --help\n"


def test_much_output(agent: Installation) -> None:
    process = agent.start("exec", "a", "head", "-c", "20000000", "/dev/zero", stdin=subprocess.DEVNULL)
    assert process.stdout
    time.sleep(0.2)
    out, _ = process.communicate(timeout=60)
    assert (len(out), process.returncode) == (20_000_000, 0)


def test_in_an_agent_that_has_finished(aos: Installation) -> None:
    aos("run", "--name", "done", "busybox:1", "-c", "true")
    done = aos("exec", "done", "true", check=125)
    assert done.err.startswith("aos exec: ")
    assert "hint: " in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-u", "absent", "a", "true"], "absent"),
        (["-it", "a", "true"], "-t with -i needs a terminal"),
        (["a"], "COMMAND is missing"),
    ],
)
def test_wrong(agent: Installation, words: list[str], said: str) -> None:
    assert said in agent("exec", *words, check=125).err


def test_attach(aos: Installation) -> None:
    aos(
        "run",
        "-d",
        "-i",
        "--name",
        "a",
        "busybox:1",
        "-c",
        "while read line; do echo got $line; done; exit 6",
    )
    process = aos.start("attach", "a")
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"x\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"got x\n"
    assert process.communicate(timeout=20)[0] == b""
    assert process.returncode == 6


def test_attach_to_an_agent_that_has_finished(aos: Installation) -> None:
    aos("run", "--name", "done", "busybox:1", "-c", "true")
    assert aos("attach", "done", check=125).err.startswith("aos attach: ")


class Person:
    """A terminal with `aos WORDS` in it; `screen` is what was shown so far."""

    def __init__(self, aos: Installation, *words: str) -> None:
        self.ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (30, 90))
        self.before = termios.tcgetattr(self.theirs)
        self.screen = ""
        self.process = subprocess.Popen(
            aos.command(*words),
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=aos.environment(),
            start_new_session=True,
        )

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def sees(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.screen:
            ready = select.select([self.ours], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} does not appear: {self.screen!r}"
            self.screen += os.read(self.ours, 4096).decode()
        self.screen = self.screen.partition(text)[2]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def person(aos: Installation) -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def sit(*words: str) -> Person:
        people.append(Person(aos, *words))
        return people[-1]

    yield sit
    for one in people:
        one.close()


RUN = ("run", "-it", "--rm", "--name", "t", "busybox:1")


def test_run_in_a_terminal(person: Callable[..., Person]) -> None:
    one = person(*RUN)
    one.type("tty; stty size; echo a$((1+1))b\r")
    one.sees("/dev/pts/")
    one.sees("30 90")
    one.sees("a2b")
    termios.tcsetwinsize(one.theirs, (40, 100))
    one.process.send_signal(signal.SIGWINCH)
    one.type("sleep 0.2; stty size\r")
    one.sees("40 100")
    one.type("sleep 100\r")
    time.sleep(0.2)
    one.type("\x03")
    one.type("echo $((6*7))\r")
    one.sees("42")
    one.type("exit 5\r")
    assert one.process.wait(20) == 5
    assert termios.tcgetattr(one.theirs) == one.before


def test_detach_and_attach(aos: Installation, person: Callable[..., Person]) -> None:
    one = person(*RUN)
    one.type("echo a$((1+1))b\r")
    one.sees("a2b")
    one.type("\x10\x11")
    assert one.process.wait(20) == 0
    assert termios.tcgetattr(one.theirs) == one.before
    assert [agent["name"] for agent in aos("ps", "-o", "json").json] == ["t"]
    two = person("attach", "t")
    two.type("echo b$((1+2))c\r")
    two.sees("b3c")
    two.type("exit 3\r")
    assert two.process.wait(20) == 3


def test_the_terminal_comes_back_when_we_are_killed_politely(
    aos: Installation, person: Callable[..., Person]
) -> None:
    one = person(*RUN)
    one.type("echo a$((1+1))b\r")
    one.sees("a2b")
    one.process.terminate()
    assert one.process.wait(20) == 143
    assert termios.tcgetattr(one.theirs) == one.before
    assert aos("ps", "-o", "json").json[0]["status"] == "running"


def test_exec_in_a_terminal(agent: Installation, person: Callable[..., Person]) -> None:
    one = person("exec", "-it", "a", "sh")
    one.type("tty; stty size; echo $((6*7))\r")
    one.sees("/dev/pts/")
    one.sees("30 90")
    one.sees("42")
    one.type("exit 9\r")
    assert one.process.wait(20) == 9
    assert termios.tcgetattr(one.theirs) == one.before


def test_colours_and_stats_on_a_terminal(agent: Installation, person: Callable[..., Person]) -> None:
    one = person("stats")
    one.sees("AGENT ID")
    one.sees("AGENT ID")
    one.type("\x03")
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(20) == 130
    two = person("inspect", "absent")
    two.sees("\x1b[31maos inspect:")


def test_prune_asks(agent: Installation, person: Callable[..., Person]) -> None:
    one = person("prune")
    one.sees("Go on? [y/N]")
    one.type("n\r")
    one.sees("nothing was removed")
    assert one.process.wait(20) == 10
    two = person("prune")
    two.sees("Go on? [y/N]")
    two.type("y\r")
    two.sees("freed ")
    assert two.process.wait(20) == 0
