"""Remove what builds that were killed have left: sandboxes and directories, locks and temporary files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.build.solve.flight import Flights
from aos.build.workspace.replace import sweep_temporary
from aos.build.workspace.workspace import SANDBOX_PREFIX, dead_workspaces

if TYPE_CHECKING:
    from pathlib import Path

    from aos.runtime.protocol import Runtime

__all__ = ["sweep"]


async def sweep(directory: Path, runtime: Runtime) -> None:
    """In `<root>/build`. Builds that still run hold their locks and are left alone."""
    Flights(directory / "locks").sweep()
    for name in ("cache", "digests", "mounts", "records"):
        sweep_temporary(directory / name)
    with dead_workspaces(directory / "work") as dead:
        if not dead:
            return
        prefixes = tuple(f"{SANDBOX_PREFIX}{id}-" for id in dead)
        for sandbox in await runtime.list():
            if sandbox.id.startswith(prefixes):
                await runtime.delete(sandbox.id, force=True)
