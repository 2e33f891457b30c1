"""The benchmarks' arithmetic: percentiles, ratios with their spread, rounds in which everybody runs once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benches.measure import Command, Series, at_once, interleave, percentile, ratio, run_timed

if TYPE_CHECKING:
    from pathlib import Path


def series(*seconds: float) -> Series:
    return Series(Command("x", ("x",)), list(seconds))


def test_a_percentile_is_a_measured_value() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0


def test_a_ratio_is_of_medians_with_the_spread_of_the_rounds() -> None:
    measured = ratio(series(2, 4, 6), series(1, 4, 2))
    assert (measured.median, measured.low, measured.high) == (2.0, 1.0, 3.0)
    assert str(measured) == "2.00 [1.00-3.00]"


def test_every_round_runs_everybody_once_and_warm_ups_are_not_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    commands = [Command(name, ("/bin/sh", "-c", f"echo {name} >> {log}")) for name in "abc"]
    measured = interleave(commands, rounds=4, warm_up=2)
    ran = log.read_text().split()
    rounds = [ran[start : start + 3] for start in range(0, len(ran), 3)]
    assert len(rounds) == 6
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1  # the order changes
    assert [len(one.seconds) for one in measured] == [4, 4, 4]
    assert all(seconds > 0 for one in measured for seconds in one.seconds)


def test_so_many_callers_run_a_command_at_once(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    script = f"""cd {tmp_path}
        mkdir warm 2>&- && exit  # the first run is alone
        touch there/$$
        for attempt in $(seq 500); do set -- there/*; [ $# -ge 3 ] && exit; sleep 0.01; done; exit 1"""
    [crowd] = at_once([Command("x", ("/bin/sh", "-c", script))], callers=3, runs=6, rounds=2)
    assert (len(crowd.series.seconds), len(crowd.rates)) == (12, 2)


def test_what_happens_around_a_command_is_not_timed() -> None:
    calls: list[str] = []
    command = Command("x", ("/bin/true",), before=lambda: calls.append("b"), after=lambda: calls.append("a"))
    interleave([command], rounds=2, warm_up=0)
    assert calls == ["b", "a", "b", "a"]


def test_unique_names_never_repeat(tmp_path: Path) -> None:
    log = tmp_path / "log"
    interleave([Command("x", ("/bin/sh", "-c", f"echo {{n}} >> {log}"), unique=True)], rounds=5, warm_up=0)
    assert len(set(log.read_text().split())) == 5


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="exit code 3\nno good"):
        run_timed(["/bin/sh", "-c", "echo no good >&2; exit 3"])


def test_the_most_memory_of_each_round_is_kept() -> None:
    hungry = ("/bin/sh", "-c", "head -c 60000000 /dev/zero | tail -c 60000000 > /dev/null")
    [measured] = interleave([Command("hungry", hungry)], rounds=2, warm_up=0)
    assert all(resident > 60_000_000 for resident in measured.resident)
