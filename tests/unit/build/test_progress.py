"""The events of a build, as plain lines, as JSON lines and as a live display that a terminal shows."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import termios
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.agentfile.definition import Copy, Run
from aos.build.plan.graph import Vertex
from aos.build.progress.events import (
    Cached,
    Event,
    Failed,
    Finished,
    Note,
    Output,
    Planned,
    Quiet,
    Started,
    Waiting,
    Warned,
    human_size,
)
from aos.build.progress.json_lines import JsonProgress
from aos.build.progress.live import LiveProgress
from aos.build.progress.plain import PlainProgress
from aos.build.progress.printable import cut, printable, width
from aos.build.progress.tally import Tally, seconds_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def vertices(*labels: str) -> list[Vertex]:
    """The first is a base, each of the others a step on top of the one before."""
    made = [Vertex(index=0, stage="", label=labels[0], operation={}, base="base:1")]
    for index, label in enumerate(labels[1:], 1):
        step = Run(args=("make",)) if "run" in label else Copy(src=("a",), dest="/a")
        made.append(Vertex(index=index, stage="it", label=label, operation={}, below=index - 1, step=step))
    return made


PLAN = vertices("from base:1", "[it 1/3] copy a /a", "[it 2/3] run make", "[it 3/3] run test")

EVENTS: list[tuple[float, Event]] = [
    (0.0, Planned(PLAN)),
    (0.01, Cached(0, size=12_000_000)),
    (0.02, Cached(1, 3.25, 2000)),
    (0.5, Started(2)),
    (0.6, Output(2, "50 %\r100 %")),
    (0.7, Output(2, "\x1b[31mred\x1b[0m \x1b]0;title\x07\x07")),
    (0.8, Warned("the clock\x1b[2J is odd")),
    (1.75, Finished(2, 1.25, 1500)),
    (1.8, Waiting(3)),
    (2.0, Started(3)),
    (2.5, Failed(3, 0.5)),
    (2.6, Note("built it:1")),
]


def play(progress: PlainProgress | JsonProgress | LiveProgress, clock: Clock) -> None:
    for at, event in EVENTS:
        clock.time = 100 + at
        progress.emit(event)


def test_plain_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainProgress(stream, clock) as progress:
        play(progress, clock)
    assert stream.getvalue().splitlines() == [
        "#1 0.01 from base:1: found, 12.0 MB",
        "#2 0.02 [it 1/3] copy a /a: cached, 2.0 kB, saved 3.2 s",
        "#3 0.50 [it 2/3] run make",
        "#3 0.60 | 100 %",
        "#3 0.70 | red \N{REPLACEMENT CHARACTER}",
        "warning: the clock is odd",
        "#3 1.75 done in 1.2 s, 1.5 kB",
        "#4 1.80 [it 3/3] run test: another build executes it",
        "#4 2.00 [it 3/3] run test",
        "#4 2.50 FAILED after 0.5 s: [it 3/3] run test",
        "built it:1",
        "1 executed, 1 cached, 1 failed in 2.6 s; the cache saved 3.2 s",
    ]


def test_every_plain_line_is_flushed() -> None:
    class Stream(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    stream = Stream()
    play(PlainProgress(stream, Clock()), Clock())
    assert stream.flushed == len(stream.getvalue().splitlines())


def test_json_lines_are_as_documented() -> None:
    stream, clock = io.StringIO(), Clock()
    with pytest.raises(RuntimeError), JsonProgress(stream, clock) as progress:
        play(progress, clock)
        raise RuntimeError
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0] == {
        "event": "planned",
        "time": 0.0,
        "vertices": [
            {"vertex": 1, "stage": "", "label": "from base:1", "kind": "base", "parents": []},
            {"vertex": 2, "stage": "it", "label": "[it 1/3] copy a /a", "kind": "copy", "parents": [1]},
            {"vertex": 3, "stage": "it", "label": "[it 2/3] run make", "kind": "run", "parents": [2]},
            {"vertex": 4, "stage": "it", "label": "[it 3/3] run test", "kind": "run", "parents": [3]},
        ],
    }
    assert lines[1:] == [
        {"event": "cached", "time": 0.01, "vertex": 1, "seconds_saved": 0.0, "size": 12_000_000},
        {"event": "cached", "time": 0.02, "vertex": 2, "seconds_saved": 3.25, "size": 2000},
        {"event": "started", "time": 0.5, "vertex": 3},
        {"event": "output", "time": 0.6, "vertex": 3, "line": "50 %\r100 %"},
        {"event": "output", "time": 0.7, "vertex": 3, "line": "\x1b[31mred\x1b[0m \x1b]0;title\x07\x07"},
        {"event": "warning", "time": 0.8, "text": "the clock\x1b[2J is odd"},
        {"event": "finished", "time": 1.75, "vertex": 3, "seconds": 1.25, "size": 1500},
        {"event": "waiting", "time": 1.8, "vertex": 4},
        {"event": "started", "time": 2.0, "vertex": 4},
        {"event": "failed", "time": 2.5, "vertex": 4, "seconds": 0.5},
        {"event": "note", "time": 2.6, "text": "built it:1"},
        {
            "event": "ended",
            "time": 2.6,
            "ok": False,
            "executed": 1,
            "cached": 1,
            "failed": 1,
            "seconds": 2.6,
            "seconds_saved": 3.25,
        },
    ]


def test_a_reader_that_went_away_does_not_end_the_build() -> None:
    stream = io.StringIO()
    stream.close()
    for progress in (
        PlainProgress(stream, Clock()),
        JsonProgress(stream, Clock()),
        LiveProgress(stream, Clock()),
    ):
        with progress:
            play(progress, Clock())
    Quiet().emit(Note("x"))


class Terminal(io.StringIO):
    """A terminal with a size of its own: what is written to it, and what a person would then see."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        super().__init__()
        self._master, self._slave = pty.openpty()
        self._screen: list[list[str]] = [[]]
        self._row = self._column = 0
        self.resize(columns, lines)

    def fileno(self) -> int:
        return self._slave

    def resize(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def close(self) -> None:
        super().close()
        os.close(self._slave)
        os.close(self._master)

    def shown(self) -> list[str]:
        """The screen with all that has scrolled away, after everything that was written."""
        for what in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+|\x1b", self.getvalue()):
            self._obey(what)
        self.seek(0)
        self.truncate()
        return ["".join(row).rstrip() for row in self._screen]

    def _obey(self, what: str) -> None:
        if what in ("\n", "\r"):
            self._column = 0
            self._row += what == "\n"
        elif match := re.fullmatch(r"\x1b\[(\d+)A", what):
            assert int(match[1]) <= self._row, "above the top"
            assert int(match[1]) < self.lines, "above what is on the screen"
            self._row -= int(match[1])
        elif what == "\x1b[K":
            del self._screen[self._row][self._column :]
        elif what == "\x1b[J":
            del self._screen[self._row][self._column :]
            del self._screen[self._row + 1 :]
        elif re.fullmatch(r"\x1b\[[0-9;]*m", what):
            pass
        else:
            assert "\x1b" not in what, f"a sequence that a terminal need not know: {what!r}"
            row = self._screen[self._row]
            row[self._column : self._column + len(what)] = what
            self._column += len(what)
        while len(self._screen) <= self._row:
            self._screen.append([])


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as made:
        yield made


def begin(terminal: Terminal, clock: Clock, plan: Sequence[Vertex] = PLAN) -> LiveProgress:
    """A display that draws when a test says so."""
    display = LiveProgress(terminal, clock, colour=True, frame=None)
    display.emit(Planned(plan))
    return display


def after(display: LiveProgress, terminal: Terminal, *events: Event) -> list[str]:
    """What is seen after a frame."""
    for event in events:
        display.emit(event)
    display.refresh()
    return terminal.shown()


def test_the_live_display_of_a_build(terminal: Terminal) -> None:
    clock = Clock()
    with begin(terminal, clock) as display:
        clock.time += 1.5
        shown = after(display, terminal, Cached(0, size=12_000_000), Cached(1, 3.0, 2000), Started(2))
        assert [line.split() for line in shown[:2]] == [
            ["✓", "from", "base:1", "found", "12.0", "MB"],
            ["✓", "[it", "1/3]", "copy", "a", "/a", "cached", "2.0", "kB"],
        ]
        assert shown[3] == "1.5 s  2 of 4 steps, 1 running, 1 cached"
        clock.time += 2
        shown = after(display, terminal, *(Output(2, f"line {number}") for number in range(20)))
        assert shown[2].split()[1:] == ["[it", "2/3]", "run", "make", "2.0", "s"]
        assert shown[3:9] == [f"  │ line {number}" for number in range(14, 20)]
        shown = after(display, terminal, Finished(2, 2.0, 1500), Waiting(3))
        assert shown[2].split() == ["✓", "[it", "2/3]", "run", "make", "2.0", "s", "1.5", "kB"]
        assert shown[3].split() == ["◷", "[it", "3/3]", "run", "test", "another", "build"]
        display.emit(Finished(3, 0.1, 0))
        display.emit(Note("built it:1"))
    shown = terminal.shown()
    assert shown[3].split()[-2:] == ["no", "layer"]
    assert shown[4:] == ["built it:1", "2 executed, 1 cached in 3.5 s; the cache saved 3.0 s", ""]


def test_rows_stand_in_the_order_of_the_plan_whatever_ends_first(terminal: Terminal) -> None:
    with begin(terminal, Clock()) as display:
        after(display, terminal, Cached(0), Started(1), Started(2))
        shown = after(display, terminal, Finished(2, 1.0, 1))
        assert [line[2:10] for line in shown[:3]] == ["from bas", "[it 1/3]", "[it 2/3]"]
        after(display, terminal, Finished(1, 2.0, 1), Started(3), Finished(3, 0.1, 1))
    assert [line[2:10] for line in terminal.shown()[:4]] == ["from bas", "[it 1/3]", "[it 2/3]", "[it 3/3]"]


def test_what_failed_stays_with_its_output_while_others_end(terminal: Terminal) -> None:
    with begin(terminal, Clock()) as display:
        after(display, terminal, Cached(0), Started(1), Started(2), Output(1, "no such file"))
        shown = after(display, terminal, Failed(1, 1.0))
        assert shown[1].startswith("✗ [it 1/3] copy a /a")
        assert shown[2] == "  │ no such file"
        assert shown[3].split()[1:4] == ["[it", "2/3]", "run"]
    shown = terminal.shown()
    assert shown[1].split()[-2:] == ["s", "failed"]
    assert shown[2].startswith("■") and shown[2].endswith("stopped")
    assert shown[3].startswith("1 failed, 1 stopped")


def test_a_result_that_was_damaged_is_shown_again_when_it_is_made_anew(terminal: Terminal) -> None:
    with begin(terminal, Clock()) as display:
        shown = after(display, terminal, Cached(0), Cached(1, 1.0, 5), Cached(2, 1.0, 5))
        assert shown[2].split()[-3] == "cached"
        display.emit(Warned("a result is damaged"))
        shown = after(display, terminal, Started(1), Cached(2, 1.0, 5))
        assert shown[3:5][0] == "warning: a result is damaged"
        assert shown[4].split()[1:4] == ["[it", "1/3]", "copy"]
        display.emit(Finished(1, 2.0, 7))
    assert [line.split()[0] for line in terminal.shown()[:5]] == ["✓", "✓", "✓", "warning:", "✓"]


def test_nothing_is_written_when_nothing_has_changed(terminal: Terminal) -> None:
    with begin(terminal, Clock()) as display:
        after(display, terminal, Started(1))
        display.refresh()
        assert terminal.getvalue() == ""


def test_what_a_step_writes_does_nothing_to_the_terminal(terminal: Terminal) -> None:
    plan = vertices("from \x1b[2Jbase", "[1/1] run \x1b]0;evil\x07x")
    with begin(terminal, Clock(), plan) as display:
        shown = after(
            display,
            terminal,
            Started(1),
            Output(1, "\x1b[2J\x1b[Hhome"),
            Output(1, "10 %\r20 %\r"),
            Output(1, "bell\x07\x9b5A"),
            Warned("\x1b[1;1Hwarned"),
        )
    assert shown[0] == "warning: warned"
    assert shown[1].startswith("⠋ [1/1] run x") or shown[1][2:].startswith("[1/1] run x")
    assert shown[2:5] == ["  │ home", "  │ 20 %", "  │ bell\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 10), (20, 5), (8, 3), (200, 60)])
def test_it_fits_any_terminal(columns: int, lines: int) -> None:
    plan = vertices("from base", *(f"[{number}/30] run 日本 {'long ' * 40}" for number in range(30)))
    clock = Clock()
    with Terminal(columns, lines) as terminal, begin(terminal, clock, plan) as display:
        after(display, terminal, Cached(0))
        for number in range(1, 31):
            after(
                display, terminal, Started(number), Output(number, "wide 日本語 " * 40), Output(number, "x")
            )
            clock.time += 7
            shown = after(display, terminal, *([Finished(number, 1.0, 10)] if number % 7 == 3 else []))
            assert max(width(line) for line in shown) < columns


def test_a_terminal_that_becomes_narrower_wraps_what_was_drawn(terminal: Terminal) -> None:
    with begin(terminal, Clock()) as display:
        after(display, terminal, Cached(0), Started(1), Output(1, "x" * 200))
        terminal.resize(40, 24)
        display.refresh()
        # three lines had been drawn: two of 79 and one of 40 columns or fewer, which now take two rows each
        assert terminal.getvalue().startswith("\r\x1b[5A")


def test_an_unchanged_build_starts_no_thread(terminal: Terminal) -> None:
    before = threading.active_count()
    with LiveProgress(terminal, Clock()) as display:
        display.emit(Planned(PLAN))
        display.emit(Cached(0))
        assert threading.active_count() == before
    assert terminal.shown()[0].startswith("✓ from base:1")


def test_frames_come_by_themselves_while_something_runs(terminal: Terminal) -> None:
    drawn = threading.Event()

    class Watched(Terminal):
        def write(self, text: str) -> int:
            if "[it 1/3]" in text:
                drawn.set()
            return super().write(text)

    with Watched() as watched, LiveProgress(watched, Clock(), frame=0.001) as display:
        display.emit(Planned(PLAN))
        display.emit(Started(1))
        assert drawn.wait(10)


def test_sizes_times_and_totals() -> None:
    assert [human_size(size) for size in (0, 999, 1500, 2_500_000, 3e9, 4e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]
    assert [seconds_text(seconds) for seconds in (0, 99.9, 99.96, 125, 3599.6, 3720)] == [
        "0.0 s",
        "99.9 s",
        "1 min 40 s",
        "2 min 05 s",
        "1 h 00 min",
        "1 h 02 min",
    ]
    tally = Tally()
    assert tally.totals(1) == ""
    tally.count(Planned(PLAN[:1]))
    tally.count(Cached(0))
    assert tally.totals(1) == "nothing to execute in 1.0 s"


def test_lines_are_made_safe() -> None:
    assert printable("a\tb\r") == "a       b"
    assert printable("\x1b[1mbold\x1b[m") == "bold"
    assert printable("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"
    assert printable("right-to-left \u202e override") == "right-to-left \N{REPLACEMENT CHARACTER} override"
    assert width("日本") == 4
    assert width("e\u0301") == 1
    assert cut("日本語", 5) == "日本…"
    assert cut("abc", 3) == "abc"
    assert cut("abc", 0) == ""


@given(st.text(max_size=60), st.integers(0, 30))
def test_any_line_is_safe_and_fits(text: str, columns: int) -> None:
    line = cut(printable(text), columns)
    assert line.isprintable()
    assert width(line) <= columns
