"""Terminals: of the entrypoint and of an exec."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from aos.testing.runtime.cases import Cases, case, collect, needs, said

if TYPE_CHECKING:
    from aos.runtime.protocol import Stdio
    from aos.testing.runtime.kit import Kit


async def _resized(stdio: Stdio, rows: int, columns: int) -> None:
    """Resize, and ask until the terminal says so: a resize overtakes no input, and nobody says when it is done."""
    assert stdio.control is not None
    os.write(stdio.control, b"1 %d %d\n" % (rows, columns))
    heard = b""
    with socket.socket(fileno=os.dup(stdio.socket)) as connection:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        while b"%d %d" % (rows, columns) not in heard:
            await loop.sock_sendall(connection, b"\n")
            packet = await loop.sock_recv(connection, 8193)
            assert packet[:1] == b"\x02"
            heard = (heard + packet[1:])[-1000:]
            await asyncio.sleep(0.01)


@needs("terminal")
class Terminals(Cases):
    @case
    async def test_a_terminal_has_one_stream_and_a_control(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "print", "out", "err", terminal=True)) as id:
            stdio = await runtime.attach(id)
            assert stdio.control is not None
            await runtime.start(id)
            out, err = await collect(stdio)
            assert (out, err) == (b"out\r\nerr\r\n", b"")
            assert (await runtime.wait(id)).code == 0

    @case
    async def test_the_entrypoint_s_terminal_can_be_resized(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "window", terminal=True, stdin=True)) as id:
            stdio = await runtime.attach(id)
            await runtime.start(id)
            await _resized(stdio, 33, 101)
            await _resized(stdio, 24, 80)
            await runtime.delete(id, force=True)
            await collect(stdio)

    @case
    async def test_an_exec_s_terminal_can_be_resized(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "window", terminal=True, stdin=True), attach=True)
            assert made.stdio is not None
            ended = asyncio.create_task(runtime.start_exec(id, made.id))
            await _resized(made.stdio, 50, 132)
            await runtime.delete(id, force=True)
            await collect(made.stdio)
            assert (await ended).code != 0

    @case
    async def test_an_exec_with_a_terminal_has_its_own_code(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            run = await self.execute(runtime, id, self.process(kit, "exit", "6", terminal=True))
            assert (run.status.cause, run.status.code) == ("exited", 6)

    @needs("files")
    @case
    async def test_a_terminal_is_one_to_its_process(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            script = "test -t 0 && test -t 1 && test -t 2 && stty sane && echo yes"
            run = await self.execute(runtime, id, self.process(kit, "sh", script, terminal=True, stdin=True))
            assert b"yes" in run.out, run

    @needs("files")
    @case
    async def test_control_c_reaches_what_is_in_the_foreground(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            process = self.process(kit, "trap", "INT", "3", terminal=True, stdin=True)
            made = await runtime.exec(id, process, attach=True)
            assert made.stdio is not None
            ended = asyncio.create_task(runtime.start_exec(id, made.id))
            await said(made.stdio, b"ready")
            os.write(made.stdio.socket, b"\x03")
            assert (await ended).code == 3
            await collect(made.stdio)
