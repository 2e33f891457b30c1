"""Single flight: one at a time, handed over at an end or a death, and no wait that cannot be given up."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING

import pytest

from aos.build.solve.flight import Flights

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event as ProcessEvent
    from pathlib import Path

KEY, OTHER = "a" * 64, "b" * 64


def test_a_key_is_flown_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    mine, theirs = Flights(tmp_path / "locks"), Flights(tmp_path / "locks")
    flight = mine.try_begin(KEY)
    assert flight is not None
    with flight:
        assert theirs.try_begin(KEY) is None
        assert mine.try_begin(KEY) is None, "two vertices of one build are no different"
        other = theirs.try_begin(OTHER)
        assert other is not None
        with other:
            pass
    assert list((tmp_path / "locks").iterdir()) == []
    again = theirs.try_begin(KEY)
    assert again is not None
    with again:
        pass


def test_waiters_go_one_after_the_other(tmp_path: Path) -> None:
    flying = 0
    flown: list[int] = []

    async def fly(number: int) -> None:
        nonlocal flying
        with await Flights(tmp_path).wait(KEY):
            flying += 1
            assert flying == 1
            await asyncio.sleep(0.002)
            flying -= 1
            flown.append(number)

    async def main() -> None:
        await asyncio.gather(*map(fly, range(8)))

    asyncio.run(main())
    assert sorted(flown) == list(range(8))
    assert list(tmp_path.iterdir()) == []


def _fly_until_killed(directory: Path, ready: ProcessEvent) -> None:
    flight = Flights(directory).try_begin(KEY)
    assert flight is not None
    with flight:
        ready.set()
        signal.pause()


def _flying(directory: Path) -> int:
    """The pid of another process that has the flight."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_fly_until_killed, args=(directory, ready))
    process.start()
    assert ready.wait(10)
    assert process.pid
    return process.pid


def test_a_death_hands_over_and_a_sweep_removes_the_file(tmp_path: Path) -> None:
    pid = _flying(tmp_path)
    flights = Flights(tmp_path)
    flights.sweep()
    assert flights.try_begin(KEY) is None, "the living keep theirs"

    async def main() -> None:
        waiting = asyncio.create_task(flights.wait(KEY))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with await asyncio.wait_for(waiting, 10):
            assert flights.try_begin(KEY) is None

    asyncio.run(main())
    pid = _flying(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [file.name for file in tmp_path.iterdir()] == [KEY]
    flights.sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_wait_is_given_up_at_once(tmp_path: Path) -> None:
    pid = _flying(tmp_path)

    async def main() -> None:
        waiting = asyncio.create_task(Flights(tmp_path).wait(KEY))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 0.5)

    try:
        asyncio.run(main())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
