"""What the node does for the network of agents: it is whole while the node runs, what it refuses is recorded, and who
asks hears of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aos.errors import AosError

if TYPE_CHECKING:
    from types import TracebackType

    from aos.kernel.process.records import Agent
    from aos.node.node import Node
    from aos.runtime.network.lease import Lease
    from aos.runtime.network.maker import BridgeMaker
    from aos.runtime.network.watch import Refusal, Watch

__all__ = ["NodeNetwork", "Tally"]

log = logging.getLogger("aosd")

_QUIET_SECONDS = 60.0
_EVENTS_PER_AGENT = 30
"""How many refusals of an agent are recorded in that time, each destination once."""


class Tally:
    """Which refusals are worth an event: the first of each destination, and after a while what came since."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, int | None], tuple[float, int]] = {}
        self._recorded: dict[str, list[float]] = {}

    def note(self, agent: str, refusal: Refusal, now: float) -> int:
        """How many the event stands for; 0: there shall be none."""
        key = (agent, refusal.protocol, refusal.destination, refusal.port)
        recorded = [at for at in self._recorded.get(agent, ()) if at > now - _QUIET_SECONDS]
        at, count = self._counts.get(key, (float("-inf"), 0))
        if now - at < _QUIET_SECONDS or len(recorded) >= _EVENTS_PER_AGENT:
            if key in self._counts:
                self._counts[key] = (at, count + 1)
            return 0
        self._recorded[agent] = [*recorded, now]
        self._counts[key] = (now, 0)
        if len(self._counts) > 10_000:
            self._counts = {one: seen for one, seen in self._counts.items() if seen[0] > now - _QUIET_SECONDS}
        return count + 1


class NodeNetwork:
    """Runs inside `async with`, around the node's: what that still cleans is gone when this ends. Costs nothing while
    no agent has a bridge."""

    def __init__(self, network: BridgeMaker) -> None:
        self._node: Node | None = None
        self._network = network
        self._used = network.directory / "pool"
        """There when somebody has used it since the host booted."""
        self._watch: Watch | None = None
        self._tally = Tally()

    async def __aenter__(self) -> NodeNetwork:
        loop = asyncio.get_running_loop()

        def begin() -> None:
            loop.call_soon_threadsafe(self._start_watching)

        self._network.on_use = begin
        if self._used.exists():
            await self._settle()
        if self._used.exists():
            self._start_watching()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            await self._watch.close()
            await self._settle()  # without an agent it goes

    def serve(self, node: Node) -> None:
        """From now on refusals are its agents'."""
        self._node = node

    async def _settle(self) -> None:
        try:
            await asyncio.to_thread(self._network().settle)
        except AosError as error:
            log.error("the network of agents: %s", error)

    def _start_watching(self) -> None:
        if self._watch is None:
            from aos.runtime.network.watch import Watch

            self._watch = Watch(self._network(), self._refused)
        else:
            self._watch.listen()

    def _refused(self, refusal: Refusal) -> None:
        node, found = self._node, self._owner(refusal.sandbox)
        if node is None or found is None:
            return
        agent, pid = found
        count = self._tally.note(agent.id, refusal, node.clock.now())
        if count:
            node.start(self._record(node, pid, refusal, count), f"refusal of {agent.id}")

    async def _record(self, node: Node, pid: int, refusal: Refusal, count: int) -> None:
        what = refusal.protocol, refusal.destination, refusal.port, count
        try:
            await node.commit(node.machine.refused(pid, *what, at=node.clock.now()))
        except AosError as error:
            log.error("a refused connection of process %d is not recorded: %s", pid, error)

    async def list(self) -> dict[str, Any]:
        """For `network.list` (docs/kernel.md)."""
        facts = await asyncio.to_thread(self._network().facts)
        return {
            "bridge": facts.bridge,
            "table": facts.table,
            "pool": facts.pool,
            "gateway": facts.gateway,
            "capacity": facts.capacity,
            "sandboxes": [self._sandbox(id, lease) for id, lease in facts.leases],
        }

    def _sandbox(self, id: str, lease: Lease) -> dict[str, Any]:
        from aos.runtime.network.policy import line_text, lines

        owner = self._owner(id)
        return {
            "sandbox": id,
            "agent": owner[0].id if owner else None,
            "name": owner[0].name if owner else None,
            "pid": owner[1] if owner else None,
            "address": str(lease.address),
            "link": lease.link,
            "resolvers": list(map(str, lease.resolvers)),
            "rules": [line_text(line) for line in lines(lease.egress, lease.resolvers)],
            "ports": [
                {
                    "address": one.address or "0.0.0.0",
                    "host": one.host,
                    "port": one.inside,
                    "protocol": one.protocol,
                }
                for one in lease.ports
            ],
            "bandwidth": {"up": lease.bandwidth.up, "down": lease.bandwidth.down},
        }

    def _owner(self, sandbox: str) -> tuple[Agent, int] | None:
        if self._node is None:
            return None
        state = self._node.machine.state
        pid = sandbox.rpartition("-")[2]
        process = state.processes.get(int(pid)) if pid.isdecimal() else None
        if process is None or process.sandbox != sandbox:
            return None
        return state.agents[process.agent], process.pid
