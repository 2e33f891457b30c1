"""The pump between a process's streams and ours, with a socket in the place of conmon's."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

SOURCE = Path(__file__).parents[3] / "src"

PROGRAM = """
import sys
sys.path.insert(0, {source!r})
from aos.cli._session import Session

class Answer:
    known = False
    descriptor = {answer}
    def advance(self):
        self.known = True

with Session(stdin={stdin}, terminal={terminal}) as session:
    sys.stderr.write(session.carry({descriptors}, Answer()))
"""


class Carried:
    """A `Session` in a process of its own; `agent` is the other end of its socket."""

    def __init__(self, *, stdin: bool = False, terminal: bool = False, on: int = subprocess.PIPE) -> None:
        self.agent, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.answer, theirs = os.pipe()
        self.control, resize = os.pipe()
        descriptors = [ours.fileno(), resize] if terminal else [ours.fileno()]
        program = PROGRAM.format(
            source=str(SOURCE), stdin=stdin, terminal=terminal, answer=self.answer, descriptors=descriptors
        )
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", program],
            pass_fds=(*descriptors, self.answer),
            stdin=on,
            stdout=on,
            stderr=subprocess.PIPE,
        )
        ours.close()
        os.close(resize)
        self.answered = theirs
        self.agent.settimeout(20)

    def say(self, data: bytes, stream: int = 2) -> None:
        self.agent.send(bytes([stream]) + data)

    def type(self, data: bytes) -> None:
        """Write to its standard input and close that, without waiting for it."""
        stdin = self.process.stdin
        assert stdin

        def write() -> None:
            stdin.write(data)
            stdin.close()

        threading.Thread(target=write).start()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.agent.close()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        for descriptor in (self.answer, self.answered, self.control):
            os.close(descriptor)


@pytest.fixture
def carry() -> Iterator[Callable[..., Carried]]:
    made: list[Carried] = []

    def make(**how: Any) -> Carried:
        made.append(Carried(**how))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_streams_are_told_apart_and_end(carry: Callable[..., Carried]) -> None:
    carried = carry()
    carried.say(b"out\n")
    carried.say(b"err\n", 3)
    carried.say(bytes(range(256)))
    carried.agent.shutdown(socket.SHUT_RDWR)
    assert carried.process.communicate(timeout=20) == (b"out\n" + bytes(range(256)), b"err\nended")


def test_much_output_into_a_slow_reader(carry: Callable[..., Carried]) -> None:
    carried = carry()
    packets = [bytes([i % 251]) * 8192 for i in range(2560)]  # 20 MiB

    def speak() -> None:
        for packet in packets:
            carried.say(packet)
        carried.agent.shutdown(socket.SHUT_RDWR)

    carried.agent.settimeout(None)
    speaker = threading.Thread(target=speak)
    speaker.start()
    assert carried.process.stdout
    got = bytearray(os.read(carried.process.stdout.fileno(), 10))
    time.sleep(0.2)  # everything between is full now, and waits
    while data := os.read(carried.process.stdout.fileno(), 1 << 16):
        got += data
    speaker.join()
    assert got == b"".join(packets)


def test_input_arrives_whole_and_ends(carry: Callable[..., Carried]) -> None:
    carried = carry(stdin=True)
    data = os.urandom(3 << 20)
    assert carried.process.stdin
    carried.type(data)
    got = bytearray()
    while packet := carried.agent.recv(1 << 16):
        assert len(packet) <= 32_768  # conmon takes no more from one packet
        got += packet
    assert got == data
    carried.say(b"after the end of input")
    carried.agent.shutdown(socket.SHUT_RDWR)
    assert carried.process.stdout
    assert carried.process.stdout.read() == b"after the end of input"


def test_input_and_output_at_once_do_not_wait_for_each_other(carry: Callable[..., Carried]) -> None:
    """The process answers more than it is told, and reads only when it has answered."""
    carried = carry(stdin=True)
    assert carried.process.stdout
    data = b"x" * (1 << 20)
    carried.type(data)
    heard = 0

    def echo() -> None:
        nonlocal heard
        while packet := carried.agent.recv(1 << 16):
            heard += len(packet)
            for _ in range(4):
                carried.say(packet[:8192])
        carried.agent.shutdown(socket.SHUT_RDWR)

    echoing = threading.Thread(target=echo)
    echoing.start()
    assert len(carried.process.stdout.read()) == 4 << 20
    echoing.join()
    assert heard == 1 << 20


def test_without_interactive_input_is_not_read(carry: Callable[..., Carried]) -> None:
    carried = carry(stdin=False)
    assert carried.process.stdin
    carried.process.stdin.write(b"not for it")
    carried.process.stdin.flush()
    carried.say(b"out")
    assert carried.process.stdout
    assert carried.process.stdout.read(3) == b"out"
    assert not select.select([carried.agent], [], [], 0)[0]


def test_a_process_that_closed_its_input_is_still_heard(carry: Callable[..., Carried]) -> None:
    carried = carry(stdin=True)
    carried.agent.shutdown(socket.SHUT_RD)
    assert carried.process.stdin
    carried.process.stdin.write(b"nobody reads this")
    carried.process.stdin.flush()
    time.sleep(0.1)
    carried.say(b"still here")
    carried.agent.close()
    assert carried.process.communicate(timeout=20)[0] == b"still here"


def test_what_was_said_before_an_end_with_input_unread_is_shown(carry: Callable[..., Carried]) -> None:
    """The kernel tells of a reset before it gives out what is still queued (unix(7))."""
    carried = carry(stdin=True)
    assert carried.process.stdin
    carried.process.stdin.write(b"never read")
    carried.process.stdin.flush()
    assert select.select([carried.agent], [], [], 20)[0]
    os.kill(carried.process.pid, signal.SIGSTOP)
    carried.say(b"first ")
    carried.say(b"last")
    carried.agent.close()
    os.kill(carried.process.pid, signal.SIGCONT)
    assert carried.process.communicate(timeout=20)[0] == b"first last"


def test_a_reader_that_left(carry: Callable[..., Carried]) -> None:
    carried = carry()
    assert carried.process.stdout
    carried.process.stdout.close()
    carried.say(b"out")
    assert carried.process.stderr
    assert carried.process.stderr.read() == b"closed"


def test_nobody_reads_the_errors(carry: Callable[..., Carried]) -> None:
    carried = carry()
    assert carried.process.stderr
    carried.process.stderr.close()
    carried.say(b"err", 3)
    carried.say(b"err", 3)
    carried.say(b"out")
    carried.agent.shutdown(socket.SHUT_RDWR)
    assert carried.process.stdout
    assert carried.process.stdout.read() == b"out"


def test_a_stream_that_does_not_end_after_its_process_has(carry: Callable[..., Carried]) -> None:
    carried = carry()
    os.write(carried.answered, b"!")
    carried.say(b"last words")
    assert carried.process.communicate(timeout=20) == (b"last words", b"ended")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_raw(descriptor: int) -> bool:
    return not termios.tcgetattr(descriptor)[3] & (termios.ECHO | termios.ISIG | termios.ICANON)


def read(descriptor: int) -> bytes:
    assert select.select([descriptor], [], [], 20)[0], "nothing came"
    return os.read(descriptor, 1 << 16)


def test_a_terminal_is_raw_meanwhile(carry: Callable[..., Carried], terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    termios.tcsetwinsize(theirs, (30, 90))
    before = termios.tcgetattr(theirs)
    carried = _on_terminal(carry, theirs)
    until(lambda: is_raw(theirs))
    assert read(carried.control) == b"1 30 90\n"
    os.write(ours, b"\x03\x1a\r")  # keys that would be signals
    assert carried.agent.recv(100) == b"\x03\x1a\r"
    carried.say(b"line\r\n")
    assert read(ours) == b"line\r\n"
    termios.tcsetwinsize(theirs, (40, 100))
    carried.process.send_signal(signal.SIGWINCH)
    assert read(carried.control) == b"1 40 100\n"
    carried.agent.shutdown(socket.SHUT_RDWR)
    assert carried.process.wait(20) == 0
    assert termios.tcgetattr(theirs) == before


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_terminal_comes_back_when_a_signal_ends_us(
    carry: Callable[..., Carried], terminal: tuple[int, int], signum: signal.Signals
) -> None:
    before = termios.tcgetattr(terminal[1])
    carried = _on_terminal(carry, terminal[1])
    until(lambda: is_raw(terminal[1]))
    carried.process.send_signal(signum)
    assert carried.process.wait(20) == 128 + signum
    assert termios.tcgetattr(terminal[1]) == before


@pytest.mark.parametrize("typed", [[b"\x10\x11"], [b"\x10", b"\x11"], [b"ls\r\x10", b"\x11"]])
def test_detach_keys(carry: Callable[..., Carried], terminal: tuple[int, int], typed: list[bytes]) -> None:
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    carried = _on_terminal(carry, theirs)
    until(lambda: is_raw(theirs))
    for keys in typed:
        os.write(ours, keys)
        time.sleep(0.05)
    assert carried.process.wait(20) == 0
    assert carried.process.stderr
    assert carried.process.stderr.read() == b"detached"
    assert termios.tcgetattr(theirs) == before


def test_half_of_the_detach_keys_goes_to_the_process(
    carry: Callable[..., Carried], terminal: tuple[int, int]
) -> None:
    carried = _on_terminal(carry, terminal[1])
    until(lambda: is_raw(terminal[1]))
    os.write(terminal[0], b"a\x10")
    assert carried.agent.recv(100) == b"a"
    os.write(terminal[0], b"\x10b")
    assert carried.agent.recv(100) == b"\x10\x10b"


def _on_terminal(carry: Callable[..., Carried], theirs: int) -> Carried:
    return carry(stdin=True, terminal=True, on=theirs)
