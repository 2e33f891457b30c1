"""What is on disk of a sandbox; the rest is containerd's to know.

<root>/sandboxes/<backend>/<id>/config.json     the runtime's configuration, as containerd has it
<root>/sandboxes/<backend>/<id>/sandbox.json    Record, once there is a container of it
<root>/sandboxes/<backend>/<id>/status.json     ExitStatus, once somebody has put it together
<root>/sandboxes/<backend>/<id>/oom             containerd has told of a process that was killed for want of memory
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CONFIG", "OOM", "Record"]

CONFIG = "config.json"
OOM = "oom"


@dataclass(frozen=True, slots=True)
class Record:
    holder: int
    holder_start: str
    """As of aos.runtime.backends.supervised.record.process_start: tells a pid from its next owner."""
    terminal: bool
    tree: tuple[str, ...]
    """Directories of the root file system, base first."""
    log: str
    leave_stdin_open: bool
    users: tuple[int, ...] | str = ""
    """As Sandbox has them."""

    def write(self, directory: Path) -> None:
        temporary = directory / "sandbox.json.new"
        temporary.write_text(json.dumps(asdict(self)))
        os.replace(temporary, directory / "sandbox.json")  # noqa: PTH105 - on the start path

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        """None for a sandbox whose creation did not get that far."""
        try:
            raw = json.loads((directory / "sandbox.json").read_bytes())
            users = raw.get("users", "")
            known = {"tree": tuple(raw["tree"]), "users": users if isinstance(users, str) else tuple(users)}
            return cls(**{**raw, **known})
        except (OSError, ValueError, TypeError, KeyError):
            return None
