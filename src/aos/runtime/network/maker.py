"""The way to an installation's BridgeNetwork for those who may never need it: it is imported when somebody does."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aos.runtime.network.bridge import BridgeNetwork

__all__ = ["BridgeMaker"]


class BridgeMaker:
    def __init__(self, installation: str, directory: Path, pool: str, *, ordinary: bool = False) -> None:
        """As BridgeConfig has them. `ordinary`: the host's network is not the caller's to change."""
        self._settings = installation, directory, pool
        self._ordinary = ordinary
        self._lock = threading.Lock()
        self._made: BridgeNetwork | None = None
        self.directory = directory
        self.on_use: Callable[[], None] = lambda: None
        """Called, in some thread, when the network is about to be used for the first time, or somewhere else."""

    def __call__(self) -> BridgeNetwork:
        with self._lock:
            if self._made is None:
                from aos.runtime.network.bridge import BridgeConfig, BridgeNetwork

                network = BridgeNetwork
                if self._ordinary:
                    from aos.runtime.network.user import UserNetwork

                    network = UserNetwork
                self._made = network(BridgeConfig(*self._settings), lambda: self.on_use())
            return self._made
