"""Moves are made as long as somebody wants them quick, and change nothing."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from aos.runtime.cgroups import detect_cgroups
from aos.runtime.quick_moves import QuickMoves


def _ends(name: str = "quick moves") -> bool:
    deadline = time.monotonic() + 5
    while any(thread.name == name for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def test_moves_go_on_until_the_last_has_left() -> None:
    moved = threading.Semaphore(0)
    moves = QuickMoves(moved.release)
    with moves:
        with moves:
            assert all(moved.acquire(timeout=5) for _ in range(3))
        assert all(moved.acquire(timeout=5) for _ in range(3))
    assert _ends()
    with moves:
        assert moved.acquire(timeout=5)
    assert _ends()


def test_who_may_not_move_does_not_try_for_ever() -> None:
    tries: list[None] = []

    def move() -> None:
        tries.append(None)
        raise PermissionError

    moves = QuickMoves(move)
    with moves:
        assert _ends()
    with moves:
        assert _ends()
    assert len(tries) == 1


@pytest.mark.root
def test_a_move_to_where_one_is_changes_nothing() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root (sudo make test)")
    before = Path("/proc/self/cgroup").read_text()
    detect_cgroups().stay()
    assert Path("/proc/self/cgroup").read_text() == before
