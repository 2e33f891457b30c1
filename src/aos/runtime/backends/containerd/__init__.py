"""Sandboxes that containerd keeps, with any of its runtime handlers: the backends `containerd` and `kata`."""

from __future__ import annotations

from aos.runtime.backends.containerd.backend import ContainerdRuntime
from aos.runtime.backends.containerd.settings import ContainerdConfig

__all__ = ["ContainerdConfig", "ContainerdRuntime"]
