"""Pins: roots of the garbage collection that outlive processes, such as agents' packages and the build cache.

A pin is one file, `pins/<owner>/<name>`, with a digest a line; it is replaced whole.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.content.blobs import storage_error
from aos.errors import InvalidArgument
from aos.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Pin", "Pins"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Pin:
    owner: str
    name: str
    digests: frozenset[Digest]


class Pins:
    def __init__(self, root: Path) -> None:
        self._directory = root / "pins"

    def set(self, owner: str, name: str, digests: Iterable[Digest]) -> None:
        """Keep these digests, and all they refer to, until `remove`. Durable on return."""
        path = self._path(owner, name)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with temporary.open("x") as file:
                file.writelines(f"{digest}\n" for digest in sorted(digests))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise storage_error(error, path) from error

    def remove(self, owner: str, name: str) -> None:
        self._path(owner, name).unlink(missing_ok=True)

    def list(self) -> list[Pin]:
        found = []
        for path in sorted(self._directory.glob("*/[!.]*")):
            with suppress(FileNotFoundError):
                found.append(
                    Pin(path.parent.name, path.name, frozenset(map(Digest, path.read_text().split())))
                )
        return found

    def date(self, owner: str, name: str) -> float:
        """When it was set last, in seconds since the epoch; 0 when there is none."""
        with suppress(FileNotFoundError):
            return self._path(owner, name).stat().st_mtime
        return 0.0

    def _path(self, owner: str, name: str) -> Path:
        for part in (owner, name):
            if not _NAME.fullmatch(part):
                raise InvalidArgument(f"{part!r:.100} cannot name a pin", code="pin-invalid")
        return self._directory / owner / name
