"""From a definition to a package: plan, steps, layers, cache. No daemon is needed.

Public surface: `build` (and `build_blocking` for commands), `BuildRequest`, `BuildServices`, `Progress` and its
events; `aos.build.plugins` for those who write plugins.
"""

from __future__ import annotations

from aos.build.inputs import find_agentfile
from aos.build.progress import Progress, open_progress
from aos.build.session import BuildRequest, BuildServices, build, build_blocking, source_date_epoch

__all__ = [
    "BuildRequest",
    "BuildServices",
    "Progress",
    "build",
    "build_blocking",
    "find_agentfile",
    "open_progress",
    "source_date_epoch",
]
