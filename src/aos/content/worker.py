"""A thread that is given items in order, so that what is done to them overlaps with making the next ones."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Worker"]

T = TypeVar("T")

_AHEAD = 4
"""Items that wait: enough to even out two sides of unsteady speed, few enough to bound memory."""


class Worker(Generic[T]):
    """Calls `work` with each item. After its first failure it takes the rest without doing anything, so that
    nobody who gives is ever blocked; the failure is raised by the next `put`, or by `finish`."""

    def __init__(self, work: Callable[[T], object]) -> None:
        self._work = work
        self._items: queue.Queue[tuple[T] | None] = queue.Queue(_AHEAD)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Wait for room, and give the item away."""
        if self._failure is not None:
            raise self._failure
        self._items.put((item,))

    def finish(self) -> None:
        """Wait until every item is done. Raise what one of them raised."""
        self.end()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Wait for the thread to end; no matter how often."""
        if self._thread.is_alive():
            self._items.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._failure is None:
                try:
                    self._work(*item)
                except BaseException as error:  # raised where the item came from
                    self._failure = error
