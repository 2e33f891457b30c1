"""Timing of command lines, interleaved, and what is said about the figures. No contender is known here."""

from __future__ import annotations

import math
import os
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Command", "Crowd", "Ratio", "Series", "at_once", "interleave", "percentile", "ratio", "run_timed"]


@dataclass(frozen=True, slots=True)
class Command:
    """One contender of a comparison: a command line, and what has to happen around it without being timed."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str] | None = None
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    unique: bool = False
    """The word `{n}` in argv becomes a number never used before (names of containers)."""


@dataclass(slots=True)
class Series:
    """Measured seconds of one command, in the order of the rounds."""

    command: Command
    seconds: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    """The most bytes resident at a time, of each round."""

    def to_json(self) -> dict[str, object]:
        return {
            "command": list(self.command.argv),
            "milliseconds": [round(one * 1000, 3) for one in self.seconds],
            "resident_bytes": max(self.resident, default=0),
            **{f"p{share}": round(percentile(self.seconds, share) * 1000, 3) for share in (50, 95, 99)},
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: a value that was measured, never one in between."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of two series from the same rounds: the ratio of the medians, and where the ratios of single rounds lie."""

    median: float
    low: float
    """10th percentile of the rounds' ratios."""
    high: float
    """90th percentile."""

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}-{self.high:.2f}]"


def ratio(ours: Series, theirs: Series) -> Ratio:
    rounds = [a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
    return Ratio(
        statistics.median(ours.seconds) / statistics.median(theirs.seconds),
        percentile(rounds, 10),
        percentile(rounds, 90),
    )


def run_timed(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[float, int]:
    """Run a command line with no input and no output kept. It must succeed. Return seconds from spawn to exit, and
    the most bytes that its process, or one that it waited for, had resident at a time."""
    silent = [(os.POSIX_SPAWN_OPEN, stream, "/dev/null", os.O_RDWR, 0) for stream in (0, 1)]
    read, write = os.pipe()
    begin = time.perf_counter()
    pid = os.posix_spawnp(
        argv[0],
        list(argv),
        dict(os.environ if environ is None else environ),
        file_actions=[*silent, (os.POSIX_SPAWN_DUP2, write, 2)],
    )
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begin
    os.close(write)
    os.set_blocking(read, False)
    try:
        complaint = os.read(read, 4096).decode(errors="replace")
    except BlockingIOError:
        complaint = ""
    os.close(read)
    if code := os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{' '.join(argv)}: exit code {code}\n{complaint}")
    return seconds, usage.ru_maxrss * 1024


def interleave(commands: Sequence[Command], rounds: int, *, warm_up: int = 3, seed: int = 1) -> list[Series]:
    """Run every command once a round, in an order shuffled each round; the first rounds are thrown away."""
    series = [Series(command) for command in commands]
    order = random.Random(seed)
    for number in range(-warm_up, rounds):
        for one in order.sample(series, len(series)):
            command = one.command
            if command.before:
                command.before()
            seconds, resident = run_timed(_words(command), command.environ)
            if command.after:
                command.after()
            if number >= 0:
                one.seconds.append(seconds)
                one.resident.append(resident)
        if sys.stderr.isatty():
            print(f"\r  {commands[0].name}: {max(number + 1, 0)}/{rounds}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return series


@dataclass(slots=True)
class Crowd:
    """One command run by several callers at once, round after round."""

    series: Series
    rates: list[float] = field(default_factory=list)
    """Runs a second, of each round."""


def at_once(
    commands: Sequence[Command], callers: int, runs: int, rounds: int, *, seed: int = 1
) -> list[Crowd]:
    """Every round, each command is run `runs` times by so many callers, who each begin the next run when one has
    ended; the commands one after the other, in an order shuffled each round. One run of each warms up."""
    crowds = [Crowd(Series(command)) for command in commands]
    order = random.Random(seed)
    for command in commands:
        run_timed(_words(command), command.environ)
    with ThreadPoolExecutor(callers) as pool:
        for _ in range(rounds):
            for one in order.sample(crowds, len(crowds)):
                command = one.series.command
                lines = [_words(command) for _ in range(runs)]
                begin = time.perf_counter()
                measured = list(pool.map(lambda words, to=command: run_timed(words, to.environ), lines))
                one.rates.append(runs / (time.perf_counter() - begin))
                one.series.seconds += [seconds for seconds, _ in measured]
                one.series.resident += [resident for _, resident in measured]
    return crowds


_count = 0


def _words(command: Command) -> Sequence[str]:
    return [word.replace("{n}", _fresh()) for word in command.argv] if command.unique else command.argv


def _fresh() -> str:
    global _count
    _count += 1
    return f"{os.getpid()}-{_count}"
