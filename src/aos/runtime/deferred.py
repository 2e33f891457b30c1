"""A backend that is imported when somebody first asks it for something: what most hosts do not use costs them nothing."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aos.runtime.protocol import Runtime
    from aos.runtime.state import Sandbox

__all__ = ["deferred"]


def deferred(load: Callable[[], Runtime], sandboxes: Path) -> Runtime:
    """`sandboxes`: the directory that holds an entry for each sandbox of the backend; without one it has none to list."""
    return cast("Runtime", _Deferred(load, sandboxes))


class _Deferred:
    def __init__(self, load: Callable[[], Runtime], sandboxes: Path) -> None:
        self._load = functools.cache(load)
        self._sandboxes = sandboxes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    async def list(self) -> list[Sandbox]:
        try:
            next(self._sandboxes.iterdir())
        except (FileNotFoundError, StopIteration):
            return []
        return await self._load().list()
