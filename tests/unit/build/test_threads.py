"""Threads of a build: stopped when the build is, and waited for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from aos.build.solve import threads
from aos.build.solve.threads import in_thread
from aos.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Callable


async def _cancelled(work: Callable[[], None], began: threading.Event) -> None:
    """Cancel it in the middle, three times: a person presses Ctrl-C more than once."""
    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(began.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.skipif(
    threading.gettrace() is not None and sys.version_info < (3, 12),
    reason="needs Python 3.12, or none that measures coverage",
)
def test_a_cancelled_thread_stops_where_it_is_and_cleans_up() -> None:
    began = threading.Event()
    ended: list[str] = []

    def work() -> None:
        try:
            began.set()
            while True:  # hashing, copying, compressing: one piece after another
                sum(range(1000))
        finally:
            ended.append("cleaned up")

    asyncio.run(_cancelled(work, began))
    assert ended == ["cleaned up"]


def test_a_thread_is_waited_for_where_it_cannot_stop() -> None:
    began, release = threading.Event(), threading.Event()
    ended: list[str] = []

    def work() -> None:
        try:
            began.set()
            release.wait(10)
        finally:
            ended.append("over")

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.1, release.set)
        await _cancelled(work, began)
        assert ended == ["over"]

    asyncio.run(main())


def test_a_thread_that_hangs_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_PATIENCE", 0.05)
    began, release = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        release.wait(10)

    asyncio.run(_cancelled(work, began))
    assert not release.is_set()
    release.set()


def test_what_a_thread_raises_is_raised() -> None:
    def work() -> None:
        raise Aborted("x")

    with pytest.raises(Aborted):
        asyncio.run(in_thread(work))


def test_a_threads_value_comes_back() -> None:
    assert asyncio.run(in_thread(lambda: 7)) == 7


def test_it_ends_also_where_python_is_traced() -> None:
    code = (
        "import asyncio, threading; from aos.build.solve.threads import in_thread;"
        "threading.settrace(lambda *_: None); print(asyncio.run(in_thread(lambda: 'done')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "done\n"


def test_a_build_is_cancelled_also_where_threads_are_traced_that_wait_for_each_other() -> None:
    """Python 3.11 would go on in none of them."""
    done = subprocess.run(
        [sys.executable, "-c", _TRACED], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "cancelled\n"


_TRACED = """
import asyncio, contextlib, queue, sys, threading, time
from aos.build.solve.threads import in_thread

def trace(*_):
    return trace

threading.settrace(trace)
sys.settrace(trace)
pieces = queue.Queue(1)

def take():
    while True:
        pieces.get()
        time.sleep(0.01)

def give():
    while True:
        pieces.put(b"")

async def main():
    threading.Thread(target=take, daemon=True).start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(in_thread(give), 0.2)
    print("cancelled")

asyncio.run(main())
"""
