"""A sandbox's way into its network where somebody else starts its processes: by the path of a descriptor of ours.

The namespace has no name on the host. Until the sandbox's first process is in it, this descriptor keeps it; from then on
the processes do. So it needs no cleaning here either, whoever is killed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aos.runtime.backends.supervised.launch import in_own_thread

if TYPE_CHECKING:
    from aos.runtime.backends.supervised.connecting import Connecting

__all__ = ["Joining", "own_descriptor"]


class Joining:
    def __init__(self, network: Connecting) -> None:
        self.network = network
        self._descriptor = -1

    async def enter(self) -> None:
        """Make the namespace, or open that of another sandbox, where the sandbox is to have one of these."""
        if self.network.namespace:
            await in_own_thread(self._enter)

    def _enter(self) -> None:
        self.network.enter()
        self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str | None:
        """For the configuration (aos.runtime.bundle.runtime_config); good until `close`."""
        if self._descriptor == -1:
            return self.network.namespace
        return own_descriptor(self._descriptor)

    def close(self) -> None:
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1


def own_descriptor(number: int) -> str:
    """The path by which other processes of this host reach what is open here."""
    return f"/proc/{os.getpid()}/fd/{number}"
