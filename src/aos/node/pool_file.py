"""Which pools there are to be, in one file: read at the node's start, replaced whole at each change."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

import msgspec

from aos.content.blobs import storage_error
from aos.kernel.syscalls import RunAgent  # noqa: TC001 - msgspec reads the types

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KeptPool", "PoolFile"]

log = logging.getLogger("aosd")


class KeptPool(msgspec.Struct, frozen=True):
    run: RunAgent
    size: int


class PoolFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[KeptPool]:
        """None of them where the file is damaged: a node without pools is slower, and no less right."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[KeptPool])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            aside = self._path.with_suffix(".json.damaged")
            log.error(
                "%s cannot be read, so there are no pools: %s; it is kept as %s", self._path, error, aside
            )
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            return []

    def write(self, pools: list[KeptPool]) -> None:
        """Durably; ResourceExhausted `disk-full` leaves what was there."""
        new = self._path.with_suffix(".json.new")
        try:
            with new.open("wb") as file:
                file.write(msgspec.json.encode(pools))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise storage_error(error, self._path) from error
