"""The events of a build, as plain lines and as a live display."""

from __future__ import annotations

import io

from rich.console import Console

from aos.build.live import LiveProgress
from aos.build.progress import (
    Cached,
    Event,
    Failed,
    Finished,
    Note,
    Output,
    PlainProgress,
    Planned,
    Quiet,
    Started,
    human_size,
    printable,
)

EVENTS: list[Event] = [
    Planned(["from base", "[1/2] run make", "[2/2] copy a /a"]),
    Cached(0),
    Started(1),
    Output(1, "50 %\r100 %"),
    Output(1, "\x1b[31mred\x1b[0m"),
    Finished(1, 1.25, 1500),
    Started(2),
    Failed(2, 0.5),
    Note("built it:1"),
]


def test_plain_lines() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    for event in EVENTS:
        progress.emit(event)
    assert stream.getvalue().splitlines() == [
        "#1 from base: cached",
        "#2 [1/2] run make",
        "#2 | 100 %",
        "#2 | \N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}[0m",
        "#2 done in 1.2 s, 1.5 kB",
        "#3 [2/2] copy a /a",
        "#3 FAILED after 0.5 s",
        "built it:1",
    ]


def test_a_reader_that_went_away_does_not_end_the_build() -> None:
    stream = io.StringIO()
    stream.close()
    PlainProgress(stream).emit(Note("x"))
    Quiet().emit(Note("x"))


def test_live_display() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, color_system=None)
    with LiveProgress(console) as progress:
        for event in EVENTS:
            progress.emit(event)
        console.print(progress._draw())
    shown = screen.getvalue()
    for words in ("from base", "cached", "[1/2] run make", "1.5 kB", "✗", "built it:1", "3/3 steps"):
        assert words in shown, words
    assert "\x1b[31m" not in shown


def test_live_display_shows_the_last_lines_of_what_runs() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    progress = LiveProgress(console)
    progress.emit(Planned(["a" * 200]))
    progress.emit(Started(0))
    for number in range(20):
        progress.emit(Output(0, f"line {number}"))
    with console.capture() as capture:
        console.print(progress._draw())
    shown = capture.get()
    assert "line 19" in shown
    assert "line 10" not in shown
    assert max(map(len, shown.splitlines())) <= 60


def test_sizes_and_lines() -> None:
    assert [human_size(size) for size in (0, 999, 1500, 2_500_000, 3e9, 4e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]
    assert printable("a\tb\r") == "a\tb"
