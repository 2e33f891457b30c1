"""Run a build's coroutine as a command does: Ctrl-C and SIGTERM cancel it, and it cleans up before it ends."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from aos.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run_interruptibly"]


def run_interruptibly(work: Callable[[], Coroutine[object, object, None]]) -> None:
    """Raise KeyboardInterrupt on Ctrl-C (as asyncio.run does), Aborted (`build-stopped`) on SIGTERM."""
    stopped = False

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        await work()

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        if not stopped:
            raise
        raise Aborted(
            "the build was stopped by SIGTERM; nothing of the unfinished steps was kept", code="build-stopped"
        ) from None
