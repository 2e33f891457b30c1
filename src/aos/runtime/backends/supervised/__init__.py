"""Sandboxes of an OCI runtime, each under a conmon of its own: what the backends `oci` and `gvisor` share."""

from __future__ import annotations

from aos.runtime.backends.supervised.backend import SupervisedRuntime
from aos.runtime.backends.supervised.host import SupervisedConfig

__all__ = ["SupervisedConfig", "SupervisedRuntime"]
