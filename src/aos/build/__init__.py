"""From a definition to a package: plan, steps, layers, cache. No daemon is needed.

Public surface: `build` (and `build_blocking` for commands), `BuildRequest`, `BuildServices`, `Progress` and its
events; `aos.build.plugins` for those who write plugins.
"""

from __future__ import annotations

from aos.build.context.inputs import find_agentfile
from aos.build.epoch import source_date_epoch
from aos.build.progress.events import Progress, Warned, open_progress
from aos.build.request import BuildRequest, BuildServices
from aos.build.session import build, build_blocking, outline

__all__ = [
    "BuildRequest",
    "BuildServices",
    "Progress",
    "Warned",
    "build",
    "build_blocking",
    "find_agentfile",
    "open_progress",
    "outline",
    "source_date_epoch",
]
