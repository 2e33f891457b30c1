"""Named volumes: directories of the installation that outlive the agents which use them.

`<root>/volumes/<name>`; made when an agent is started with them, empty; removed by their owner alone.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.kernel.process.records import Agent

__all__ = ["Volumes", "used_by"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")


class Volumes:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def source(self, text: str) -> Path:
        """The host path of a mount's source: an absolute path, or the name of a volume, which then is there.
        InvalidArgument `volume-invalid`."""
        if text.startswith("/"):
            return Path(text)
        path = self._path(text)
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.chmod(0o755)  # whatever the umask is: an agent may be any user
        self.directory.chmod(0o711)
        return path

    def list(self) -> list[str]:
        try:
            return sorted(path.name for path in self.directory.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    async def inspect(self, name: str) -> dict[str, Any]:
        """NotFound `volume-not-found`."""
        path = self._existing(name)
        status = path.stat()
        return {
            "volume": name,
            "path": str(path),
            "created_at": status.st_ctime,
            "bytes": await asyncio.to_thread(_size, path),
        }

    async def remove(self, name: str, agents: Iterable[Agent]) -> None:
        """With all that is in it. NotFound `volume-not-found`, FailedPrecondition `volume-in-use`."""
        path = self._existing(name)
        users = used_by(name, agents)
        if users:
            raise FailedPrecondition(
                f"volume {name} is used by {', '.join(users)}",
                code="volume-in-use",
                hint=f"remove the agent first (`aos rm {users[0]}`)",
                volume=name,
            )
        gone = path.with_name(f".{name}.{os.urandom(4).hex()}")
        path.rename(gone)  # at once and as a whole, whatever happens to the rest
        await asyncio.to_thread(_remove, gone)

    async def sweep(self) -> None:
        """Finish removals that a crash interrupted."""
        if self.directory.is_dir():
            for path in self.directory.glob(".*"):
                await asyncio.to_thread(_remove, path)

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if not path.is_dir():
            raise NotFound(
                f"no volume {name!r}", code="volume-not-found", hint="`aos volume ls` lists them", volume=name
            )
        return path

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"{name!r:.100} is not a name for a volume",
                code="volume-invalid",
                hint="letters, digits, '_', '.' and '-', a letter or digit first, at most 63; a path begins with / or ./",
            )
        return self.directory / name


def used_by(name: str, agents: Iterable[Agent]) -> list[str]:
    """The names of the agents that have a volume mounted, or would when they are started again."""
    return [
        agent.name
        for agent in agents
        if any(mount["source"] == name for mount in agent.program.overrides.get("mounts") or ())
    ]


def _size(directory: Path) -> int:
    total = 0
    for parent, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.lstat(os.path.join(parent, file)).st_blocks * 512  # noqa: PTH118
            except OSError:
                continue
    return total


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
