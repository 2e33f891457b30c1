"""From a definition to a package: plan, steps, layers, cache. No daemon is needed.

Public surface: `build` (and `build_blocking` for commands), `BuildRequest`, `BuildServices`, `Progress` and its
events; `aos.build.plugins` for those who write plugins.
"""

from __future__ import annotations

from aos.build.progress import PlainProgress, Progress, Quiet
from aos.build.session import BuildRequest, BuildServices, build, build_blocking, source_date_epoch

__all__ = [
    "BuildRequest",
    "BuildServices",
    "PlainProgress",
    "Progress",
    "Quiet",
    "build",
    "build_blocking",
    "source_date_epoch",
]
