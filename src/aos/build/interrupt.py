"""Ctrl-C and SIGTERM end a build in order: whatever it does at that moment, it cleans up and says that it was
stopped. A second signal changes nothing."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, NoReturn

from aos.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

__all__ = ["run_interruptibly", "stopped_by_sigterm"]


class _Terminated(BaseException):
    """SIGTERM has come. Not an Exception, as KeyboardInterrupt is none: nothing recovers from it on the way out."""


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Raise Aborted (`build-stopped`) where SIGTERM arrives. In another than the main thread: no effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except _Terminated:
        raise Aborted(
            "the build was stopped by SIGTERM; nothing of the unfinished steps was kept", code="build-stopped"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def run_interruptibly(work: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run `work` in an event loop; signals cancel it. Raise KeyboardInterrupt on Ctrl-C, inside
    `stopped_by_sigterm` what that raises."""
    import asyncio

    stopped_by: signal.Signals | None = None

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            nonlocal stopped_by
            if stopped_by is None:
                stopped_by = number
                task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        await work()

    handler = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        if stopped_by is None:
            raise
    finally:
        signal.signal(signal.SIGTERM, handler)  # asyncio leaves the default one
    if stopped_by is signal.SIGINT:
        raise KeyboardInterrupt
    if stopped_by is signal.SIGTERM:
        raise _Terminated


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated
