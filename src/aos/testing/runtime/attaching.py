"""The entrypoint's streams: nothing is missed, everybody hears, and the end of one is not the end of the other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, collect, said

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


class Attaching(Cases):
    @case
    async def test_attached_before_start_misses_nothing(self, kit: Kit) -> None:
        run = await self.run(kit.make(), self.spec(kit, "print", "to out", "to err"))
        assert (run.out, run.err) == (b"to out\n", b"to err\n")

    @case
    async def test_everything_arrives_before_the_end(self, kit: Kit) -> None:
        run = await self.run(kit.make(), self.spec(kit, "lines", "3000"))
        assert run.out == b"".join(b"line %d\n" % number for number in range(1, 3001))

    @case
    async def test_input_and_its_end_reach_the_process(self, kit: Kit) -> None:
        text = b"".join(b"line %d\n" % number for number in range(200))
        run = await self.run(kit.make(), self.spec(kit, "cat", stdin=True), text)
        assert run.out == text
        assert run.status.code == 0

    @case
    async def test_bytes_are_not_text(self, kit: Kit) -> None:
        data = bytes(range(256)) * 3
        assert (await self.run(kit.make(), self.spec(kit, "cat", stdin=True), data)).out == data

    @case
    async def test_much_input_and_much_output_at_once(self, kit: Kit) -> None:
        data = os.urandom(1 << 14) * 48
        run = await self.run(kit.make(), self.spec(kit, "cat", stdin=True), data)
        assert run.out == data

    @case
    async def test_output_comes_after_the_end_of_input(self, kit: Kit) -> None:
        run = await self.run(kit.make(), self.spec(kit, "size", stdin=True), b"x" * 100_000)
        assert run.out == b"100000\n"

    @case
    async def test_without_stdin_the_input_is_empty(self, kit: Kit) -> None:
        run = await self.run(kit.make(), self.spec(kit, "cat"))
        assert (run.out, run.status.code) == (b"", 0)

    @case
    async def test_input_for_a_process_that_takes_none_goes_nowhere(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "size")) as id:
            stdio = await runtime.attach(id)
            await runtime.start(id)
            assert (await collect(stdio, b"unheard\n"))[0] == b"0\n"

    @case
    async def test_every_client_hears_everything(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "lines", "50")) as id:
            clients = [await runtime.attach(id) for _ in range(3)]
            await runtime.start(id)
            heard = await asyncio.gather(*(collect(client) for client in clients))
        assert {out.count(b"\n") for out, _ in heard} == {50}

    @case
    async def test_whoever_attaches_later_hears_what_comes_then(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "count")) as id:
            await self.counted(runtime, id)
            stdio = await runtime.attach(id)
            assert await said(stdio, b"\n")
            os.close(stdio.socket)

    @case
    async def test_one_leaves_and_another_comes(self, kit: Kit) -> None:
        runtime = kit.make()
        spec = replace(self.spec(kit, "cat", stdin=True), leave_stdin_open=True)
        async with self.running(runtime, spec) as id:
            for word in (b"first\n", b"second\n", b"third\n"):
                stdio = await runtime.attach(id)
                with socket.socket(fileno=stdio.socket) as connection:
                    connection.send(word)
                    assert await said(stdio, word) == word
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @case
    async def test_input_of_two_clients_reaches_the_process(self, kit: Kit) -> None:
        runtime = kit.make()
        spec = replace(self.spec(kit, "cat", stdin=True), leave_stdin_open=True)
        async with self.running(runtime, spec) as id:
            one, two = await runtime.attach(id), await runtime.attach(id)
            with socket.socket(fileno=one.socket) as first, socket.socket(fileno=two.socket) as second:
                first.send(b"of one\n")
                await said(two, b"of one\n")
                second.send(b"of two\n")
                await said(one, b"of two\n")

    @case
    async def test_input_ends_with_its_client_unless_it_is_left_open(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "cat", stdin=True)) as id:
            stdio = await runtime.attach(id)
            with socket.socket(fileno=stdio.socket) as connection:
                connection.send(b"some\n")
                await said(stdio, b"some\n")
            assert (await runtime.wait(id)).code == 0

    @case
    async def test_a_client_that_leaves_ends_nothing(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "count")) as id:
            os.close((await runtime.attach(id)).socket)
            await runtime.start(id)
            stdio = await runtime.attach(id)
            await said(stdio, b"\n")
            os.close(stdio.socket)
            await self.counted(runtime, id, 3)
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @case
    async def test_without_a_terminal_there_is_no_control(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            stdio = await runtime.attach(id)
            os.close(stdio.socket)
            assert stdio.control is None

    @pytest.mark.parametrize("how", ["stopped", "deleted"])
    @case
    async def test_the_end_is_the_end_of_file(self, kit: Kit, how: str) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            stdio = await runtime.attach(id)
            await runtime.start(id)
            heard = asyncio.create_task(collect(stdio))
            if how == "deleted":
                await runtime.delete(id, force=True)
            else:
                await runtime.signal(id, signal.SIGKILL)
            assert await heard == (b"", b"")
