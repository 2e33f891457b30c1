"""Where packages live: the local registry (names on this host), and any OCI distribution registry over HTTP.

    local         LocalRegistry: one index file from references to manifest digests
    client        DistributionClient: push and pull over HTTP(S)
    credentials   what Docker and podman already know about logins

Import from the modules themselves: the client's HTTP stack is paid for only by those who push and pull.
"""

from __future__ import annotations

from aos.registry.local import LocalRegistry
from aos.registry.protocol import Entry, PackageRegistry

__all__ = ["Entry", "LocalRegistry", "PackageRegistry"]
