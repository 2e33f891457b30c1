"""The last lines that a process wrote, for its exit record."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from aos.redaction import Redaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["read_tail"]

_LINES = 10
_BYTES = 2048
"""Of text; the read behind it is larger by what the log's prefixes take."""


def read_tail(log: Path, since: float, secrets: Sequence[bytes] = ()) -> str:
    """At most ten lines and 2 KiB, none from before `since` (seconds since the epoch), without the secrets; empty when
    there is no log.
    Its format is Kubernetes CRI."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4 * _BYTES))
            raw = file.read()
    except OSError:
        return ""
    text: list[str] = []
    partial = ""
    for line in raw.decode(errors="replace").splitlines():
        fields = line.split(" ", 3)
        if len(fields) < 4 or fields[2] not in ("P", "F") or not _at_least(fields[0], since):
            continue  # the first line may be cut, earlier ones are another process's
        partial += fields[3]
        if fields[2] == "F":
            text.append(partial)
            partial = ""
    if partial:
        text.append(partial)
    lines = text[-_LINES:]
    if secrets:
        redact = Redaction(secrets)
        lines = [redact(line.encode(errors="surrogateescape")).decode(errors="replace") for line in lines]
    return "\n".join(lines)[-_BYTES:]


def _at_least(text: str, since: float) -> bool:
    try:
        return datetime.fromisoformat(text).timestamp() >= since
    except ValueError:
        return False
