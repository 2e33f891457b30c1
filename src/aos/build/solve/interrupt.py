"""Ctrl-C, SIGTERM and SIGHUP end a build in order: whatever it does at that moment, it cleans up and says that it
was stopped. A second signal changes nothing; a SIGHUP that is ignored already (nohup) stays so."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from aos.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

__all__ = ["run_interruptibly", "stopped_by_signals"]


class _Stopped(BaseException):
    """A signal has come. Not an Exception, as KeyboardInterrupt is none: nothing recovers from it on the way out."""


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Aborted (`build-stopped`) where SIGTERM or SIGHUP arrives. In another than the main thread: no effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _stopping()}
    after: dict[signal.Signals, Any] = dict(before)
    try:
        yield
    except (_Stopped, KeyboardInterrupt) as stopped:
        after |= dict.fromkeys((signal.SIGINT, *before), signal.SIG_IGN)  # the command is as good as over
        if isinstance(stopped, KeyboardInterrupt):
            raise
        raise Aborted(
            f"the build was stopped by {stopped}; nothing of the unfinished steps was kept",
            code="build-stopped",
        ) from None
    finally:
        for number, handler in after.items():
            signal.signal(number, handler)


def run_interruptibly(work: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run `work` in an event loop; signals cancel it. Raise KeyboardInterrupt on Ctrl-C, inside
    `stopped_by_signals` what that raises."""
    import asyncio

    stopped_by: signal.Signals | None = None
    numbers = _stopping()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            nonlocal stopped_by
            if stopped_by is None:
                stopped_by = number
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, *numbers):
            loop.add_signal_handler(number, stop, number)
        await work()

    before = {number: signal.getsignal(number) for number in numbers}
    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        if stopped_by is None:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # asyncio leaves the default one
    if stopped_by is signal.SIGINT:
        raise KeyboardInterrupt
    if stopped_by is not None:
        raise _Stopped(stopped_by.name)


def _stopping() -> list[signal.Signals]:
    return [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]


def _stop(number: int, frame: object) -> NoReturn:
    raise _Stopped(signal.Signals(number).name)
