"""The `gvisor` backend: runsc, each sandbox under a conmon of its own."""

from __future__ import annotations

from aos.runtime.backends.gvisor.runsc import Runsc

__all__ = ["Runsc"]
