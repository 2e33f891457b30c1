"""A command in a sandbox for the node itself: what it wrote, how it ended, and no longer than it may take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.errors import AosError

if TYPE_CHECKING:
    from aos.ids import SandboxId
    from aos.runtime.protocol import Runtime, Stdio
    from aos.runtime.spec import ProcessSpec

__all__ = ["Outcome", "one_line", "run_inside"]

_PACKET = 1 + 8192
"""Bytes; conmon's packets are no larger."""
_OUTPUT = 64 << 10
"""Bytes that are kept; what comes after is read and dropped."""
_LAST_WORDS = 0.5
"""Seconds that what it wrote may still take to arrive: something that it left running can hold the pipe open."""


@dataclass(frozen=True, slots=True)
class Outcome:
    good: bool
    output: str
    why: str
    """What went wrong, in words; empty when nothing did."""


async def run_inside(runtime: Runtime, sandbox: SandboxId, process: ProcessSpec, seconds: float) -> Outcome:
    """Run it to its end. It is killed when the time is over; an error of the runtime is a failure of the command."""
    output = bytearray()
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(seconds):
            made = await runtime.exec(sandbox, process, attach=True)
            if made.stdio is not None:
                reading = asyncio.create_task(_read(made.stdio, output))
            status = await runtime.start_exec(sandbox, made.id)
            if reading is not None:
                await asyncio.wait([reading], timeout=_LAST_WORDS)
    except TimeoutError:
        return Outcome(False, _text(output), f"it took longer than {seconds:g} s")
    except AosError as error:
        return Outcome(False, _text(output), error.message)
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    if status.code == 0:
        return Outcome(True, _text(output), "")
    how = f"exit code {status.code}" if status.signal is None else f"signal {status.signal}"
    return Outcome(False, _text(output), f"it ended with {how}" if status.cause != "lost" else status.detail)


def one_line(text: str, most: int) -> str:
    """What an agent has said, for records and messages: a terminal obeys nothing of it."""
    words = " ".join(text.split())[:most]
    return "".join(character if character.isprintable() else "?" for character in words)


async def _read(stdio: Stdio, output: bytearray) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=stdio.socket) as stream, contextlib.suppress(OSError):
        stream.setblocking(False)
        while packet := await loop.sock_recv(stream, _PACKET):
            output += packet[1 : 1 + max(0, _OUTPUT - len(output))]


def _text(output: bytearray) -> str:
    return output.decode(errors="replace").strip()
