"""Hear of an exit file when it is written, by inotify(7): conmon itself ends some milliseconds later, when the kernel
has taken its mount namespace apart."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ExitFiles"]

_IN_MOVED_TO, _IN_ONESHOT = 0x80, 0x80000000
_IN_CLOEXEC, _IN_NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK
_EVENT = struct.Struct("iIII")


class ExitFiles:
    """One inotify instance for all sandboxes of an event loop, made on first use."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}

    def expect(self, directory: Path) -> asyncio.Future[None]:
        """Done when a file is renamed into the directory (conmon writes beside and renames); never done where the
        host has no watch to give: whoever waits has another sign."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        watch = self._watch(loop, directory)
        if watch >= 0:
            self._waiting[watch] = written
            written.add_done_callback(lambda _: self._waiting.pop(watch, None))
        return written

    def _watch(self, loop: asyncio.AbstractEventLoop, directory: Path) -> int:
        libc = ctypes.CDLL(None)
        if self._loop is not loop:
            self.close()
            self._descriptor = int(libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK))
            if self._descriptor < 0:
                return -1
            self._loop = loop
            loop.add_reader(self._descriptor, self._read)
        flags = ctypes.c_uint32(_IN_MOVED_TO | _IN_ONESHOT)
        return int(libc.inotify_add_watch(self._descriptor, os.fsencode(directory), flags))

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            written = self._waiting.get(watch)
            if mask & _IN_MOVED_TO and written is not None and not written.done():
                written.set_result(None)

    def close(self) -> None:
        if self._descriptor >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        self._descriptor, self._loop = -1, None
        self._waiting.clear()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
