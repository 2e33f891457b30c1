"""Pools over the memory backend, with real packages: what is given away, what is thrown away, and what a kill leaves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from aos.content.store import ContentStore
from aos.errors import AlreadyExists, AosError, FailedPrecondition, Internal, NotFound, ResourceExhausted
from aos.ids import SandboxId
from aos.kernel.process.events import ProcessSpawned
from aos.kernel.process.records import Agent, ProcessState
from aos.kernel.syscalls import RunAgent
from aos.node import pools as rooms
from aos.node.pool import of_the_sandbox, pool_name
from aos.node.pools import Pools
from aos.node.programs import PackagePrograms
from aos.node.secrets import AgentSecrets
from aos.node.volumes import Volumes
from aos.registry.local import LocalRegistry
from aos.runtime.policy import Policy
from aos.runtime.state import SandboxState
from node_world import PROGRAMS, Host
from package_making import make_package

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from aos.node.node import Node
    from aos.runtime.backends.memory import MemoryProcess

HELLO = "hello:1"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_CALM", 0.001)
    monkeypatch.setattr(rooms, "_LOOK", 0.05)


class World:
    """A host with a registry of its own, and nodes that keep pools on it."""

    def __init__(self, home: Path, most: int = 8) -> None:
        self.most = most
        self.home = home
        content = ContentStore(home / "content")
        self.blobs = content.blobs
        self.registry = LocalRegistry(home, content)
        self.programs = PackagePrograms(
            content,
            self.registry,
            Volumes(home / "volumes"),
            AgentSecrets(home / "secrets"),
            Policy(own=(home / "own",)),
        )
        self.host = Host(home / "logs", programs=self.programs)
        self.ran: list[str] = []
        PROGRAMS["/bin/hello"] = self._hello
        self.tag(HELLO)

    async def _hello(self, process: MemoryProcess) -> int:
        """Nothing runs that the journal does not know."""
        assert process.hostname in self.host.journal.load().names
        self.ran.append(process.hostname)
        if process.args == ("sleep",):
            await asyncio.Event().wait()
        return 3

    def tag(self, reference: str, **definition: Any) -> None:
        self.registry.tag(reference, make_package(self.blobs, **definition).manifest_digest)

    @contextlib.asynccontextmanager
    async def node(self) -> AsyncIterator[tuple[Node, Pools]]:
        """Killed at the end of the block."""
        async with self.host.node() as node:
            yield node, await Pools(node, self.programs, self.home / "pools.json", self.most).__aenter__()

    async def run(self, node: Node, pools: Pools, call: RunAgent, name: str = "") -> Agent:
        """As `agent.run` does."""
        program, restart, limit = await self.programs.program(call)
        async with pools.taken(program, call.replicas) as pooled:
            agent, _, _ = await node.run(
                program,
                name=name,
                restart=restart,
                remove=call.remove,
                attach=False,
                size=None,
                replicas=call.replicas,
                limit=limit,
                pooled=pooled,
            )
        return agent

    def waiting(self) -> set[str]:
        return {id for id, held in self.host.world.items() if held.state is SandboxState.CREATED}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def call(**more: Any) -> RunAgent:
    return msgspec.convert({"reference": HELLO, **more}, RunAgent)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


def test_what_waits_is_given_to_the_next_and_replaced(world: World) -> None:
    async def main() -> None:
        async with world.node() as (node, pools):
            made = await pools.keep(call(env={"A": "1"}), 2, wait=True)
            assert (made["ready"], made["size"], made["runtime"], made["pids"]) == (2, 2, "memory", 2)
            before = world.waiting()
            assert len(before) == 2 and world.ran == []
            agent = await world.run(node, pools, call(env={"A": "1"}), "bob")
            process = node.machine.state.processes[agent.pid]
            assert process.sandbox in before and process.sandbox == f"{agent.id}-0"
            record = await node.wait(agent.id)
            assert (record.cause, record.code, world.ran) == ("exited", 3, ["bob"])
            assert node.processes.log_of(agent.id).exists()
            spawned = [one.event for one in world.host.journal.read(0, 99)]
            assert [one.sandbox for one in spawned if isinstance(one, ProcessSpawned)] == [process.sandbox]
            [now] = await pools.records()
            assert (now["taken"], now["missed"]) == (1, 0)
            await until(lambda: len(world.waiting()) == 2)
            assert process.sandbox not in world.waiting()

    asyncio.run(main())


@pytest.mark.parametrize(
    "other",
    [
        {"args": ["other"]},
        {"entrypoint": ["/bin/hello"]},
        {"env": {"A": "2"}},
        {"env": {"A": "1", "B": "1"}},
        {"limits": {"memory": 1 << 30}},
        {"limits": {"pids": 5}},
        {"hostname": "named"},
        {"user": "0"},
        {"work_dir": "/"},
        {"stdin": True},
        {"terminal": True},
        {"read_only": True},
        {"disk": 1 << 30},
        {"tmpfs": [{"target": "/t"}]},
        {"mounts": [{"source": "data", "target": "/d"}]},
        {"secrets": [{"name": "KEY", "data": "c2VjcmV0"}]},
        {"network": "bridge"},
        {"confinement": {"drop_capabilities": ["CHOWN"]}},
        {"confinement": {"seccomp": "agent"}},
        {"confinement": {"users": "private"}},
        {"confinement": {"ulimits": [{"name": "nofile", "soft": 1, "hard": 1}]}},
        {"replicas": 2},
    ],
    ids=str,
)
def test_what_is_not_exactly_the_same_is_not_given(world: World, other: dict[str, Any]) -> None:
    async def main() -> None:
        async with world.node() as (node, pools):
            await pools.keep(call(env={"A": "1"}), 1, wait=True)
            [waiting] = world.waiting()
            with contextlib.suppress(AosError):  # of what the memory backend cannot do
                agent = await world.run(node, pools, call(**{"env": {"A": "1"}, **other}))
                assert all(node.machine.state.processes[pid].sandbox != waiting for pid in agent.pids)
            assert waiting in world.waiting()
            assert (await pools.records())[0]["taken"] == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "asked",
    [
        {"secrets": [{"name": "KEY", "data": "c2VjcmV0"}]},
        {"mounts": [{"source": "data", "target": "/d"}]},
        {"network": "bridge"},
        {"network": "host"},
        {"confinement": {"devices": ["a.com/b=c"]}},
    ],
    ids=str,
)
def test_what_is_one_agent_s_cannot_wait(world: World, asked: dict[str, Any]) -> None:
    async def main() -> None:
        async with world.node() as (_, pools):
            with pytest.raises(FailedPrecondition) as refused:
                await pools.keep(call(**asked), 1, wait=True)
            assert refused.value.code == "pool-unfit"
            assert await pools.records() == []
        assert not (world.home / "secrets").exists() or not list((world.home / "secrets").iterdir())

    asyncio.run(main())


def test_a_hook_before_the_sandbox_cannot_wait(world: World) -> None:
    world.tag(HELLO, hooks={"pre_create": [{"exec": ["x"], "where": "host"}]})

    async def main() -> None:
        async with world.node() as (_, pools):
            with pytest.raises(FailedPrecondition, match="preCreate"):
                await pools.keep(call(), 1, wait=False)

    asyncio.run(main())


def test_pools_have_a_bound_and_can_be_made_smaller(world: World) -> None:
    async def main() -> None:
        async with world.node() as (_, pools):
            await pools.keep(call(), 5, wait=True)
            with pytest.raises(ResourceExhausted) as refused:
                await pools.keep(call(args=["other"]), 4, wait=False)
            assert refused.value.code == "pools-full"
            await pools.keep(call(), 2, wait=True)
            await until(lambda: len(world.waiting()) == 2)
            await pools.keep(call(args=["other"]), 6, wait=True)
            assert len(world.waiting()) == world.most
            names = [one["pool"] for one in await pools.records()]
            assert await pools.remove(HELLO) == names
            await until(lambda: not world.host.world)
            with pytest.raises(NotFound):
                await pools.remove(HELLO)

    asyncio.run(main())


def test_a_lower_bound_than_before_holds(world: World) -> None:
    async def main() -> None:
        async with world.node() as (_, pools):
            await pools.keep(call(), 5, wait=True)
        world.most = 2
        async with world.node() as (_, pools):
            await until(lambda: len(world.waiting()) == 2)
            await asyncio.sleep(0.1)
            assert len(world.waiting()) == 2
            assert (await pools.records())[0]["size"] == 5

    asyncio.run(main())


def test_another_package_empties_the_pool_and_fills_it_anew(world: World) -> None:
    async def main() -> None:
        async with world.node() as (node, pools):
            await pools.keep(call(), 2, wait=True)
            before, old = world.waiting(), world.registry.resolve(HELLO)
            assert pools.digests() == [old, old]
            world.tag(HELLO, metadata={"name": "hello", "version": "2.0.0"})
            agent = await world.run(node, pools, call())  # at once: nobody has looked yet
            assert node.machine.state.processes[agent.pid].sandbox not in before
            await until(lambda: len(world.waiting()) == 2 and not world.waiting() & before)
            world.registry.remove(HELLO)
            await until(lambda: not world.waiting())
            [record] = await pools.records()
            assert (record["ready"], record["digest"]) == (0, None)
            assert "no package" in record["problem"]
            assert pools.digests() == []
            world.tag(HELLO)
            await until(lambda: len(world.waiting()) == 2)
            assert (await pools.records())[0]["problem"] == ""

    asyncio.run(main())


def test_what_ends_while_it_waits_is_nobody_s(world: World) -> None:
    async def main() -> None:
        async with world.node() as (node, pools):
            await pools.keep(call(), 1, wait=True)
            [first] = world.waiting()
            await world.host.runtime.signal(SandboxId(first), signal.SIGKILL)
            await until(lambda: world.waiting() and first not in world.host.world)
            agent = await world.run(node, pools, call(), "bob")
            assert (await node.wait(agent.id)).code == 3
            assert world.ran == ["bob"]

    asyncio.run(main())


def test_what_cannot_be_handed_over_is_made_anew(world: World) -> None:
    async def main() -> None:
        async with world.node() as (node, pools):
            await pools.keep(call(), 1, wait=True)
            world.host.runtime.faults["rename"] = Internal("it is gone", code="runtime-failed")
            agent = await world.run(node, pools, call(), "bob")
            assert (await node.wait(agent.id)).code == 3
            assert world.ran == ["bob"]

    asyncio.run(main())


def test_a_run_that_is_refused_leaves_nothing_of_what_it_took(world: World) -> None:
    async def main() -> None:
        async with world.node() as (node, pools):
            await pools.keep(call(), 1, wait=True)
            agent = await world.run(node, pools, call(args=["sleep"]), "bob")
            [first] = world.waiting()
            with pytest.raises(AlreadyExists):
                await world.run(node, pools, call(), "bob")
            world.host.runtime.faults["start"] = Internal("no", code="runtime-failed")
            await until(lambda: world.waiting() - {first})
            with pytest.raises(Internal):
                await world.run(node, pools, call(), "jim")
            await until(lambda: len(world.host.world) == 2)  # bob's, and the one that waits
            await until(lambda: len(list((world.home / "logs").iterdir())) == 2)
            assert set(node.machine.state.agents) == {agent.id}
            assert world.ran == ["bob"]

    asyncio.run(main())


def test_a_pool_that_cannot_be_filled_says_why(world: World) -> None:
    async def main() -> None:
        async with world.node() as (_, pools):
            with pytest.raises(FailedPrecondition) as refused:
                await pools.keep(call(entrypoint=["/bin/other"]), 1, wait=True)
            assert refused.value.code == "entrypoint-not-found"
            assert "/bin/other" in (await pools.records())[0]["problem"]

    asyncio.run(main())


def test_the_node_s_end_empties_pools_and_its_start_fills_them(world: World) -> None:
    async def main() -> None:
        async with world.host.node() as node:
            async with Pools(node, world.programs, world.home / "pools.json", 8) as pools:
                await pools.keep(call(), 3, wait=True)
            await node.__aexit__()
            assert not world.host.world
        async with world.node():
            await until(lambda: len(world.waiting()) == 3)

    asyncio.run(main())


def test_a_damaged_file_is_kept_and_costs_the_pools_alone(world: World) -> None:
    (world.home / "pools.json").write_bytes(b"[{")

    async def main() -> None:
        async with world.node() as (_, pools):
            assert await pools.records() == []
            await pools.keep(call(), 1, wait=True)
        assert (world.home / "pools.json.damaged").read_bytes() == b"[{"

    asyncio.run(main())


def test_a_pool_s_name_follows_from_the_sandbox_alone() -> None:
    plain = pool_name(of_the_sandbox(call()))
    assert pool_name(of_the_sandbox(call(name="bob", remove=True, attach=True, restart="always"))) == plain
    assert pool_name(of_the_sandbox(call(env={"A": "1"}))) != plain


@pytest.mark.parametrize("seed", range(5))
def test_kills_at_random_leave_nothing_over_and_start_nothing(world: World, seed: int) -> None:
    """Runs, pools and packages come and go, things fail, and the node is killed. In the end each sandbox is an agent's or
    waits in a pool, and nothing ran that the journal did not know (World._hello)."""
    chance = random.Random(seed)
    host = world.host

    async def act(node: Node, pools: Pools, number: int) -> None:
        some = chance.choice([call(), call(), call(args=["sleep"]), call(env={"A": "1"})])
        match chance.choice(["run", "run", "run", "keep", "keep", "drop", "tag", "die", "fault", "rm"]):
            case "run":
                await world.run(node, pools, some, f"n{number}")
            case "keep":
                await pools.keep(some, chance.choice([1, 2, 3]), wait=chance.random() < 0.3)
            case "drop":
                await pools.remove(HELLO)
            case "tag":
                world.tag(HELLO, metadata={"name": "hello", "version": f"1.0.{chance.randrange(3)}"})
            case "die":
                for id in sorted(world.waiting())[:1]:
                    await host.runtime.signal(SandboxId(id), signal.SIGKILL)
            case "fault":
                what = chance.choice(["create", "rename", "start", "delete"])
                host.runtime.faults[what] = Internal("it failed", code="runtime-failed")
            case "rm":
                for agent in list(node.machine.state.agents.values())[:1]:
                    await node.commit(node.machine.remove(agent.id, force=True, at=node.clock.now()))

    async def main() -> None:
        number = 0
        for _ in range(6):
            async with world.node() as (node, pools):
                for _ in range(10):
                    number += 1
                    with contextlib.suppress(AosError, TimeoutError):
                        async with asyncio.timeout(chance.choice([0.002, 2])):
                            await act(node, pools, number)
                    await asyncio.sleep(chance.choice([0, 0, 0.005]))
            host.runtime.faults.clear()
        async with world.node() as (node, pools):
            with contextlib.suppress(NotFound):
                await pools.remove(HELLO)
            await pools.keep(call(), 2, wait=True)

            def calm() -> bool:
                processes = node.machine.state.processes.values()
                known = {process.sandbox for process in processes} | pools.sandboxes()
                logs = {path.name.partition(".")[0] for path in (world.home / "logs").iterdir()}
                return (
                    len(pools.sandboxes()) == 2
                    and all(process.state is not ProcessState.SPAWNING for process in processes)
                    and set(host.world) <= known
                    and logs <= {sandbox.partition("-")[0] for sandbox in known}
                )

            await until(calm)

    asyncio.run(main())
