"""The `oci` backend: runc or crun, each sandbox under a conmon of its own."""

from __future__ import annotations

from aos.runtime.backends.oci.backend import OciConfig, OciRuntime

__all__ = ["OciConfig", "OciRuntime"]
