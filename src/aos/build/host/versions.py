"""Versions of the host's tools that shape what a step makes. Read from files: a cached build starts no process."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

__all__ = ["mmdebstrap_version", "uv_version"]

_UV_DIST = re.compile(r"uv-([^-]+)\.dist-info")
_MMDEBSTRAP = re.compile(rb"^our \$VERSION = '([^'\n]+)'", re.MULTILINE)
_HEAD = 4096  # bytes of mmdebstrap, a Perl script, that hold its version


def uv_version() -> str:
    """Of the uv that was installed with AOS; "" when there is none."""
    spec = find_spec("uv")
    if spec is None or spec.origin is None:
        return ""
    site = Path(spec.origin).parent.parent
    return next((found[1] for path in site.glob("uv-*") if (found := _UV_DIST.fullmatch(path.name))), "")


def mmdebstrap_version() -> str:
    """Of the mmdebstrap on the PATH; "" when there is none, or it does not say."""
    path = shutil.which("mmdebstrap")
    if path is None:
        return ""
    try:
        with Path(path).open("rb") as file:
            found = _MMDEBSTRAP.search(file.read(_HEAD))
    except OSError:
        return ""
    return found[1].decode(errors="replace") if found else ""
