"""The `oci` backend: runc, crun or youki, each sandbox under a conmon of its own."""

from __future__ import annotations

from aos.runtime.backends.oci.runc import Runc

__all__ = ["Runc"]
