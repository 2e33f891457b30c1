"""Pools of sandboxes that are made before anybody asks: their entrypoints wait, and whoever takes one starts it.

A sandbox in a pool belongs to an agent to come: it has that agent's id, and its process no number yet (`<agent>-0`).
The journal hears of it when it is taken, before it is started. So what a killed daemon leaves is a sandbox of no agent,
which the next one deletes (adoption.py). Which pools there are to be is in a file; what waits in them only here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import structs

from aos.errors import AosError, FailedPrecondition, Internal, NotFound, ResourceExhausted
from aos.ids import SandboxId
from aos.node.pool import Pool, Shape, check_poolable, of_the_sandbox, pool_name
from aos.node.pool_file import KeptPool, PoolFile
from aos.node.processes import Pooled
from aos.oci.digest import Digest
from aos.runtime.choice import Needs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from aos.kernel.process.records import Program
    from aos.kernel.process.restart import RestartLimit
    from aos.kernel.syscalls import RunAgent
    from aos.node.node import Node

__all__ = ["Pools"]

log = logging.getLogger("aosd")

_HOSTNAME = "agent"
"""Of what waits, where its agent gives it another."""
_CALM = 0.1
"""Seconds that no agent is being started before another sandbox is made: whoever started one comes first."""
_PATIENCE = 1.0
"""Seconds after which one is made although agents are started all the time."""
_LOOK = 5.0
"""Seconds between two looks at what references stand for: builds and `packages rm` change it without the node."""


class Programs(Protocol):
    async def program(self, call: RunAgent) -> tuple[Program, str, RestartLimit | None]: ...


class Pools:
    """Inside `async with`: pools are filled until its end, and then emptied."""

    def __init__(self, node: Node, programs: Programs, file: Path, most: int) -> None:
        """`most`: sandboxes in all pools together."""
        self._node = node
        self._programs = programs
        self._file = PoolFile(file)
        self._most = most
        self._pools: dict[str, Pool] = {}
        self._making: Digest | None = None
        """Of what is being made."""
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._asking = asyncio.Lock()
        """Held while the file is changed: it says first what then holds."""

    async def __aenter__(self) -> Pools:
        for kept in await asyncio.to_thread(self._file.read):
            name = pool_name(kept.run)
            self._pools[name] = Pool(name, kept.run, kept.size)
        self._filling = self._node.start(self._fill(), "fill pools")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._filling.cancel()
        await asyncio.wait([self._filling])
        for pool in self._pools.values():
            self._drop(pool, list(pool.ready))

    # What people ask for.

    async def keep(self, call: RunAgent, size: int, *, wait: bool) -> dict[str, Any]:
        """Have so many sandboxes wait for runs that are like this one; with `wait`, return when they do. FailedPrecondition
        `pool-unfit`, ResourceExhausted `pools-full`, and whatever a run raises."""
        call = of_the_sandbox(call)
        name = pool_name(call)
        async with self._asking:
            others = sum(pool.size for pool in self._pools.values() if pool.name != name)
            if others + size > self._most:
                raise ResourceExhausted(
                    f"all pools together may hold {self._most} sandboxes; others hold {others}, and {size} are asked for",
                    code="pools-full",
                    hint="`aos pool ls` shows them; [pool] sandboxes of the configuration is the bound",
                )
            command, shape = await self._resolve(call)
            pool = self._pools.get(name) or Pool(name, call, size)
            await self._write({**self._kept(), name: KeptPool(call, size)})
            self._pools[name] = pool
            pool.size = size
        pool.worked()
        self._reshape(pool, command, shape)
        self._drop(pool, list(pool.ready)[size:])
        self._wake.set()
        if wait:
            await self._until_full(pool)
        return await self._record(pool)

    async def _until_full(self, pool: Pool) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: pool.error or len(pool.ready) >= pool.size or self._pools.get(pool.name) is not pool
            )
        if pool.error:
            raise pool.error

    async def records(self) -> list[dict[str, Any]]:
        await self.refresh()
        return [await self._record(pool) for pool in list(self._pools.values())]

    async def remove(self, text: str) -> list[str]:
        """The pool of this name, or all of a reference; their names. NotFound `pool-not-found`."""
        async with self._asking:
            found = [pool for pool in self._pools.values() if text in (pool.name, pool.call.reference)]
            if not found:
                raise NotFound(
                    f"no pool {text!r:.100}",
                    code="pool-not-found",
                    hint="`aos pool ls` lists them",
                    pool=text[:100],
                )
            await self._write(
                {name: one for name, one in self._kept().items() if self._pools[name] not in found}
            )
            for pool in found:
                del self._pools[pool.name]
                self._drop(pool, list(pool.ready))
        await self._tell()
        return [pool.name for pool in found]

    async def refresh(self) -> None:
        """Throw away what nobody would be given now: the package or what the policy allows is another."""
        for pool in list(self._pools.values()):
            try:
                command, shape = await self._resolve(pool.call)
            except AosError as error:
                if pool.error is None or pool.error.message != error.message:
                    log.warning("pool %s of %s is empty: %s", pool.name, pool.call.reference, error)
                self._reshape(pool, (), None)
                pool.error = error
            else:
                if pool.shape is None:
                    pool.worked()
                self._reshape(pool, command, shape)

    def digests(self) -> list[Digest]:
        """Of the packages whose layers are mounted in what waits, or is being made."""
        held = [pooled.digest for pool in list(self._pools.values()) for pooled in list(pool.ready)]
        return [*held, *filter(None, [self._making])]

    def sandboxes(self) -> set[str]:
        return {pooled.sandbox for pool in list(self._pools.values()) for pooled in list(pool.ready)}

    # Giving away.

    @contextlib.asynccontextmanager
    async def taken(self, program: Program, replicas: int) -> AsyncIterator[Pooled | None]:
        """A sandbox that is exactly what the program's would be, or None; discarded where the block fails."""
        pooled = await self._take(program) if self._pools and replicas == 1 else None
        try:
            yield pooled
        except BaseException:
            if pooled is not None:
                self._node.clean(self._discard(pooled), f"discard {pooled.sandbox}")
            raise

    async def _take(self, program: Program) -> Pooled | None:
        if not any(pool.shape and pool.shape.digest == program.digest for pool in self._pools.values()):
            return None
        wanted = await self._shape_of(program)
        pool = next((pool for pool in self._pools.values() if pool.shape == wanted), None)
        if pool is None:
            return None
        self._wake.set()
        if not pool.ready:
            pool.missed += 1
            return None
        pool.taken += 1
        pooled = next(iter(pool.ready))
        pool.ready.pop(pooled).cancel()
        return pooled

    # Filling.

    async def _fill(self) -> None:
        while True:
            self._wake.clear()
            await self.refresh()
            pool = self._hungry()
            if pool is None:
                await self._tell()
                await self._rest()
            else:
                await self._calm()
                await self._add(pool)
                await self._tell()

    def _hungry(self) -> Pool | None:
        """The one that lacks most."""
        now, room = self._node.clock.now(), len(self.sandboxes()) < self._most
        lacking = [
            pool
            for pool in self._pools.values()
            if room and pool.shape is not None and pool.retry_at <= now and len(pool.ready) < pool.size
        ]
        return min(lacking, key=lambda pool: len(pool.ready) / pool.size, default=None)

    async def _rest(self) -> None:
        """Until something was taken or asked for, or it is time to look again."""
        now = self._node.clock.now()
        again = [pool.retry_at - now for pool in self._pools.values() if pool.retry_at > now]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min([*again, _LOOK]) if self._pools else None):
                await self._wake.wait()

    async def _calm(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._node.processes.quiet.wait()
                await asyncio.sleep(_CALM)
                await self._node.processes.quiet.wait()

    async def _add(self, pool: Pool) -> None:
        shape = pool.shape
        if shape is None or self._pools.get(pool.name) is not pool:
            return  # changed meanwhile
        agent = self._node.ids.fresh()
        sandbox, written = SandboxId(f"{agent}-0"), self._node.processes.log_of(agent)
        self._making = Digest(shape.digest)
        try:
            await self._node.runtime.create(sandbox, replace(shape.spec, log=written))
        except (AosError, OSError) as error:
            written.unlink(missing_ok=True)
            self._failed(pool, error if isinstance(error, AosError) else Internal(str(error)))
            return
        finally:
            self._making = None
        pooled = Pooled(agent, sandbox, Digest(shape.digest), shape.spec.hostname)
        pool.ready[pooled] = self._node.start(self._watch(pool, pooled), f"watch {sandbox}")
        pool.error = None
        if self._pools.get(pool.name) is not pool or pool.shape != shape or len(pool.ready) > pool.size:
            self._drop(pool, [pooled])

    async def _watch(self, pool: Pool, pooled: Pooled) -> None:
        """Whatever ends it while it waits, nobody will be given it."""
        try:
            why: str = (await self._node.runtime.wait(pooled.sandbox)).cause
        except AosError as error:
            why = error.message
        if pool.ready.pop(pooled, None) is not None:
            message = f"sandbox {pooled.sandbox} ended while it waited: {why}"
            self._failed(pool, FailedPrecondition(message, code="pool-sandbox-ended", sandbox=pooled.sandbox))
            self._wake.set()
            self._node.clean(self._discard(pooled), f"discard {pooled.sandbox}")

    def _failed(self, pool: Pool, error: AosError) -> None:
        log.warning("pool %s of %s: %s", pool.name, pool.call.reference, error)
        pool.failed(error, self._node.clock.now())

    def _drop(self, pool: Pool, some: Iterable[Pooled]) -> None:
        for pooled in some:
            pool.ready.pop(pooled).cancel()
            self._node.clean(self._discard(pooled), f"discard {pooled.sandbox}")

    async def _discard(self, pooled: Pooled) -> None:
        await self._node.processes.discard(pooled.sandbox)
        self._node.processes.log_of(pooled.agent).unlink(missing_ok=True)

    # What a sandbox is like.

    async def _resolve(self, call: RunAgent) -> tuple[tuple[str, ...], Shape]:
        dry = structs.replace(call, dry_run=True)  # else its secrets would be kept for an agent
        program, _, _ = await self._programs.program(dry)
        shape = await self._shape_of(program)
        check_poolable(program, shape.spec)
        if not call.hostname:
            needs = Needs(shape.spec.isolation, shape.spec.needs | {"rename"})
            try:
                await self._node.runtime.choose(shape.backend, needs)
            except FailedPrecondition as error:
                raise FailedPrecondition(
                    f"the {shape.backend} backend cannot name a sandbox after its agent once it is made",
                    code="pool-unfit",
                    hint="give --hostname, to the pool and to the runs that take from it",
                    backend=shape.backend,
                ) from error
        return program.command, shape

    async def _shape_of(self, program: Program) -> Shape:
        spec = await self._node.processes.spec_of(program, _HOSTNAME)
        choice = await self._node.runtime.choose(spec.runtime, Needs(spec.isolation, spec.needs))
        return Shape(program.digest, spec, choice.name)

    def _reshape(self, pool: Pool, command: tuple[str, ...], shape: Shape | None) -> None:
        pool.command = command
        if pool.shape != shape:
            pool.shape = shape
            self._drop(pool, list(pool.ready))

    async def _record(self, pool: Pool) -> dict[str, Any]:
        memory = pids = 0
        for pooled in list(pool.ready):
            with contextlib.suppress(AosError):
                usage = await self._node.runtime.stats(pooled.sandbox)
                memory, pids = memory + (usage.memory_bytes or 0), pids + (usage.pids or 0)
        return pool.record(memory, pids)

    def _kept(self) -> dict[str, KeptPool]:
        return {name: KeptPool(pool.call, pool.size) for name, pool in self._pools.items()}

    async def _write(self, kept: dict[str, KeptPool]) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(self._file.write, list(kept.values())))
        try:
            await asyncio.shield(writing)
        finally:
            if not writing.done():  # cancelled: no other write may begin before this one has ended
                await asyncio.wait([writing])

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
