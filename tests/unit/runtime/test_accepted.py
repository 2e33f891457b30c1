"""Who is not accepted yet does not count as connected."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from aos.runtime.backends.supervised.accepted import accepted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A listener, and a client in its queue."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        client.connect(str(tmp_path / "socket"))
        yield listener, client


def test_a_connection_that_waits_in_the_queue_is_not_accepted(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    listener, client = connection

    async def check() -> None:
        waiting = asyncio.create_task(accepted(client.fileno(), seconds=60))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        with listener.accept()[0]:
            async with asyncio.timeout(10):
                await waiting

    asyncio.run(check())


def test_it_waits_for_a_bounded_time(connection: tuple[socket.socket, socket.socket]) -> None:
    async def check() -> None:
        async with asyncio.timeout(30):
            await accepted(connection[1].fileno(), seconds=0.01)

    asyncio.run(check())
