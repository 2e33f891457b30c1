"""What a probe takes for good: real servers on loopback, well and badly behaved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from aos.kernel.process.health import HttpTarget, Probe, Streak
from aos.node.asking import ask_http, ask_tcp
from aos.node.inside import one_line
from aos.runtime.loopback import connect_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aos.node.inside import Outcome


@contextlib.asynccontextmanager
async def server(answer: bytes, *, hang: bool = False) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if hang:
                await reader.read()
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            ended.set()

    ended = asyncio.Event()
    serving = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with serving:
        yield serving.sockets[0].getsockname()[1]
        await ended.wait()


async def _connect(port: int) -> int:
    return await connect_loopback(os.getpid(), port)


def http(answer: bytes, *, hang: bool = False) -> Outcome:
    async def main() -> Outcome:
        async with server(answer, hang=hang) as port:
            return await ask_http(_connect, HttpTarget(port, "/x"), 0.3 if hang else 5)

    return asyncio.run(main())


@pytest.mark.parametrize("status", [200, 204, 301, 399])
def test_two_and_three_hundreds_are_good(status: int) -> None:
    assert http(b"HTTP/1.1 %d Whatever\r\n\r\n" % status).good


@pytest.mark.parametrize("status", [100, 199, 400, 404, 500])
def test_others_are_not(status: int) -> None:
    outcome = http(b"HTTP/1.1 %d No\r\n\r\n" % status)
    assert not outcome.good
    assert f"/x answered {status} No" in outcome.why


def test_what_is_no_http() -> None:
    for answer in (b"", b"hello\r\n", b"HTTP/1.1\r\n", b"HTTP/1.1 abc\r\n", b"\xff" * 100_000):
        assert "does not speak HTTP" in http(answer).why


def test_a_server_that_keeps_the_connection_is_fine_one_that_says_nothing_is_not() -> None:
    assert http(b"HTTP/1.1 200 OK\r\n", hang=True).good
    assert "no answer" in http(b"", hang=True).why


def test_an_endless_answer_ends() -> None:
    assert http(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1_000_000).good


def test_tcp() -> None:
    async def main() -> None:
        async with server(b"") as port:
            assert (await ask_tcp(_connect, port, 5)).good
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        assert "Connection refused" in (await ask_tcp(_connect, port, 5)).why

    asyncio.run(main())


def test_a_streak() -> None:
    streak = Streak(Probe(tcp=1, retries=2, start_period=10.0, interval=30.0))
    assert streak.pause() == 1.0
    assert [streak.answered(False, at) for at in (1.0, 2.0, 9.0)] == [None, None, None]  # too early to count
    assert streak.answered(False, 11.0) is None
    assert streak.answered(False, 12.0) is False
    assert streak.pause() == 30.0
    assert streak.answered(True, 13.0) is True
    assert streak.answered(False, 14.0) is True
    assert streak.answered(True, 15.0) is True
    assert streak.answered(False, 16.0) is True  # the success between them cleared the count
    assert streak.answered(False, 17.0) is False
    early = Streak(Probe(tcp=1, retries=1, start_period=10.0))
    assert early.answered(True, 1.0) is True
    assert early.answered(False, 2.0) is False  # once it was good, there is nothing to wait for


def test_what_an_agent_says_moves_no_cursor() -> None:
    assert one_line("a\x1b[2J\nb\tc", 100) == "a?[2J b c"
