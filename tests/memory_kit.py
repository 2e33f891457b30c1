"""The conformance suite's programs as coroutines, and its kit for the memory backend."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from aos.clock import SystemClock
from aos.runtime.backends.memory import MemoryProcess, MemoryRuntime

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PROGRAMS", "MemoryKit"]


async def exit_with(process: MemoryProcess) -> int:
    return int(process.args[0])


async def print_lines(process: MemoryProcess) -> None:
    process.print(process.args[0])
    process.print(process.args[1], error=True)


async def cat(process: MemoryProcess) -> None:
    while data := await process.read():
        process.write(data)


async def sleep(_: MemoryProcess) -> None:
    await asyncio.Event().wait()


async def env(process: MemoryProcess) -> None:
    process.print(process.env.get(process.args[0], ""))


async def hostname(process: MemoryProcess) -> None:
    process.print(process.hostname)


async def count(process: MemoryProcess) -> None:
    number = 0
    while True:
        number += 1
        process.print(str(number))
        await process.sleep(0.01)


async def lines(process: MemoryProcess) -> None:
    for number in range(int(process.args[0])):
        process.print(f"line {number + 1}")


async def tail(process: MemoryProcess) -> None:
    process.write(process.args[0].encode())


async def size(process: MemoryProcess) -> None:
    process.print(str(len(await process.read_all())))


async def trap(process: MemoryProcess) -> int:
    came = asyncio.Event()
    process.trap(signal.Signals[f"SIG{process.args[0]}"], came.set)
    process.print("ready")
    await came.wait()
    return int(process.args[1])


async def ignore(process: MemoryProcess) -> None:
    process.trap(signal.SIGTERM, lambda: None)
    process.print("ready")
    await asyncio.Event().wait()


async def die(process: MemoryProcess) -> None:
    process.die(signal.Signals[f"SIG{process.args[0]}"])


async def hog(process: MemoryProcess) -> None:
    process.run_out_of_memory()


async def window(process: MemoryProcess) -> None:
    while await process.read():
        process.print(f"{process.rows} {process.columns}")


PROGRAMS = {
    "exit": exit_with,
    "print": print_lines,
    "cat": cat,
    "sleep": sleep,
    "env": env,
    "hostname": hostname,
    "count": count,
    "lines": lines,
    "tail": tail,
    "size": size,
    "trap": trap,
    "ignore": ignore,
    "die": die,
    "hog": hog,
    "window": window,
}


class MemoryKit:
    layers = ()

    def __init__(self, logs: Path, made: type[MemoryRuntime] = MemoryRuntime) -> None:
        self._logs = logs
        self._made = made
        self.world = made(PROGRAMS, logs, SystemClock()).world

    def make(self) -> MemoryRuntime:
        return self._made(PROGRAMS, self._logs, SystemClock(), self.world)

    def command(self, program: str, *args: str) -> tuple[str, ...]:
        return (program, *args)

    def traces(self) -> frozenset[str]:
        return frozenset({*self.world, *map(str, self._logs.glob("*"))})
