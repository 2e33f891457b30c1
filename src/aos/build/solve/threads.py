"""Blocking work of a build, in threads that end with it: a cancelled build removes its directories when nobody writes
to them any more.

A thread is told to stop by an exception that CPython raises in it at its next instruction: hashing, copying,
compressing and unpacking go piece by piece, so that takes milliseconds, and nothing of it need know of cancellation.
It may strike anywhere, as kill -9 may; what is on disk is made for that. A thread that hangs in the kernel (a disk that
does not answer, somebody else's lock) is left alone after a while: it ends with the process, and the next build sweeps.
So is every thread where Python 3.11 is traced, for coverage or by a debugger: while an exception is on its way to one
thread, no other that is traced comes to its next instruction, and neither do both when one waits for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_thread"]

T = TypeVar("T")


_PATIENCE = 1.2
"""Seconds for a thread to stop: a signal ends a build in less than two."""


async def in_thread(work: Callable[[], T]) -> T:
    """Call `work` in a thread. When cancelled, stop it, wait for its end, and then be cancelled."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    thread = _Thread(work, lambda: loop.call_soon_threadsafe(ended.set))
    thread.start()
    try:
        await ended.wait()
    except asyncio.CancelledError:
        thread.stop()
        await _ended(ended, loop.time() + _PATIENCE)
        raise
    return thread.result()


async def _ended(ended: asyncio.Event, deadline: float) -> None:
    """Wait for it until then, however often that is cancelled."""
    while not ended.is_set():
        try:
            async with asyncio.timeout_at(deadline):
                await ended.wait()
        except TimeoutError:
            return
        except asyncio.CancelledError:
            continue


class _Stopped(BaseException):
    pass


class _Thread(threading.Thread, Generic[T]):
    def __init__(self, work: Callable[[], T], ended: Callable[[], object]) -> None:
        super().__init__(name="build", daemon=True)
        self._work = work
        self._ended = ended
        self._over = threading.Lock()
        """Held while the end is told from the middle: no exception is sent after it."""
        self._is_over = False
        self._can_stop = threading.gettrace() is None or sys.version_info >= (3, 12)
        self._is_stopped = False
        self._value: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            try:
                self._value.append(self._work())
            finally:
                with self._over:
                    self._is_over = True
                if self._is_stopped:
                    _let_it_strike()
        except BaseException as error:
            self._error = error
        with contextlib.suppress(RuntimeError):  # the loop is over: nobody waited any longer
            self._ended()

    def stop(self) -> None:
        with self._over:
            if self._can_stop and not self._is_over:
                self._is_stopped = True
                _raise_in(self.ident, _Stopped)

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value[0]


def _raise_in(thread: int | None, exception: type[BaseException]) -> None:
    """Raise an exception in a thread, when it comes to its next instruction (C API, PyThreadState_SetAsyncExc)."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread or 0), ctypes.py_object(exception))


def _let_it_strike() -> None:
    """Be where an exception that is on its way does no harm."""
    for _ in range(100):
        pass
