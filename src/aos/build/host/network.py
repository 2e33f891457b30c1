"""Name resolution and proxies of the host, for steps with a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["network_mounts", "proxy_environment"]

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")


def network_mounts(root: Path = Path("/")) -> tuple[Mount, ...]:
    """The host's resolver configuration and names, read-only."""
    found = ((root / name, "/" + name) for name in ("etc/resolv.conf", "etc/hosts"))
    return tuple(
        Mount("bind", target, source.resolve(), read_only=True)
        for source, target in found
        if source.is_file()
    )


def proxy_environment(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The proxy variables that are set, in both spellings as they are."""
    names = sorted(name for name in environ if name.lower() in _PROXIES)
    return tuple((name, environ[name]) for name in names)
