"""The network modes that need nothing around the sandbox. Each is a capability: `network-none`, `network-host`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.runtime.spec import NetworkSpec
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit

_LINKS = "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '"


@needs("files")
class Networks(Cases):
    @needs("network-none")
    @case
    async def test_no_network_is_a_loopback_of_its_own(self, kit: Kit) -> None:
        spec = replace(self.spec(kit, "sh", _LINKS), network=NetworkSpec("none"))
        assert (await self.output(kit, spec)).split() == ["lo"]

    @needs("network-none")
    @case
    async def test_loopback_works_and_is_not_the_host_s(self, kit: Kit) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            script = (
                f"nc -w 1 127.0.0.1 {port} < /dev/null 2>/dev/null && echo reached;"
                "nc -l -p 5555 > /heard & until nc -w 1 127.0.0.1 5555 < /etc/hosts 2>/dev/null; do sleep 0.02; done;"
                "wait; test -s /heard && echo own"
            )
            assert await self.output(kit, self.spec(kit, "sh", script)) == "own\n"

    @needs("network-none")
    @case
    async def test_the_host_name_leads_to_loopback(self, kit: Kit) -> None:
        spec = replace(self.spec(kit, "sh", "grep -w somebody /etc/hosts | cut -f1"), hostname="somebody")
        assert await self.output(kit, spec) == "127.0.0.1\n"

    @needs("network-host")
    @case
    async def test_the_host_s_network(self, kit: Kit) -> None:
        spec = replace(self.spec(kit, "sh", _LINKS), network=NetworkSpec("host"))
        assert set((await self.output(kit, spec)).split()) == {name for _, name in socket.if_nameindex()}

    @needs("connect", "network-none")
    @case
    async def test_a_port_of_its_loopback_is_reached(self, kit: Kit) -> None:
        runtime = kit.make()
        script = "while :; do echo hello | nc -l -p 5556; done"
        async with self.running(runtime, self.spec(kit, "sh", script)) as id:
            with pytest.raises(ConnectionRefusedError):
                await runtime.connect(id, 5557)
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    stream = await runtime.connect(id, 5556)
                    break
                await asyncio.sleep(0.02)
            with socket.socket(fileno=stream) as connection:
                connection.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(connection, 100) == b"hello\n"
