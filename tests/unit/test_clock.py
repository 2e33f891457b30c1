"""The real clock: wall-clock seconds since 1970, and a monotonic one."""

from __future__ import annotations

import time

from aos.clock import SystemClock


def test_the_clock_is_the_systems() -> None:
    before, now, after = time.time(), SystemClock().now(), time.time()
    assert before <= now <= after


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)
    assert time.monotonic() >= readings[-1]
