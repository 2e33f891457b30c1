"""Steps that are not left half-way: what was begun outside of this process goes on when its caller is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["finished"]

_T = TypeVar("_T")


async def finished(step: Coroutine[None, None, _T], name: str) -> _T:
    """Await it. Who is cancelled meanwhile hears of that when the step has ended, one way or the other, so that what
    comes next, which is to undo it, comes after it."""
    task = asyncio.create_task(step, name=name)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: the cancellation is what the caller hears of
        raise
