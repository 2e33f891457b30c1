"""Many at once."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from aos.testing.runtime.cases import Cases, case

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


class Concurrency(Cases):
    @case
    async def test_many_at_once(self, kit: Kit) -> None:
        runtime = kit.make()
        runs = [self.run(runtime, self.spec(kit, "exit", str(code))) for code in range(8)]
        assert [run.status.code for run in await asyncio.gather(*runs)] == list(range(8))
        assert await runtime.list() == []

    @case
    async def test_streams_of_many_are_not_mixed(self, kit: Kit) -> None:
        runtime = kit.make()
        inputs = [b"%d\n" % number * 2000 for number in range(4)]
        runs = await asyncio.gather(
            *(self.run(runtime, self.spec(kit, "cat", stdin=True), input) for input in inputs)
        )
        assert [run.out for run in runs] == inputs

    @case
    async def test_two_instances_at_once(self, kit: Kit) -> None:
        instances = [kit.make(), kit.make()]
        runs = [self.run(instances[code % 2], self.spec(kit, "exit", str(code))) for code in range(4)]
        assert [run.status.code for run in await asyncio.gather(*runs)] == list(range(4))

    @case
    async def test_calls_of_every_kind_at_once(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            waiting = asyncio.create_task(runtime.wait(id))
            await asyncio.gather(
                runtime.list(),
                runtime.stats(id),
                runtime.logs(id),
                runtime.info(),
                self.execute(runtime, id, self.process(kit, "exit", "0")),
                runtime.list(),
                self.run(runtime, self.spec(kit, "print", "beside", "")),
                self.execute(runtime, id, self.process(kit, "cat", stdin=True), b"x"),
            )
            assert not waiting.done()
            await runtime.signal(id, signal.SIGKILL)
            assert (await waiting).signal == signal.SIGKILL

    @case
    async def test_list_while_others_come_and_go(self, kit: Kit) -> None:
        runtime = kit.make()

        async def look() -> None:
            while True:
                for sandbox in await kit.make().list():
                    assert sandbox.id.startswith("case-")
                await asyncio.sleep(0.005)

        looking = asyncio.create_task(look())
        for _ in range(3):
            await asyncio.gather(*(self.run(runtime, self.spec(kit, "exit", "0")) for _ in range(2)))
        assert not looking.done() or looking.result()
        looking.cancel()
        await asyncio.wait([looking])

    @case
    async def test_killed_all_at_once(self, kit: Kit) -> None:
        runtime = kit.make()
        ids = [self.id() for _ in range(5)]
        await asyncio.gather(*(runtime.create(id, self.spec(kit, "sleep")) for id in ids))
        await asyncio.gather(*(runtime.start(id) for id in ids))
        await asyncio.gather(*(runtime.signal(id, signal.SIGKILL) for id in ids))
        assert {status.signal for status in await asyncio.gather(*map(runtime.wait, ids))} == {signal.SIGKILL}
        await asyncio.gather(*map(runtime.delete, ids))
        assert await runtime.list() == []
