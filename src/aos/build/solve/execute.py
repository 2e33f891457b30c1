"""Execute one vertex: prepare an upper directory, let the step fill it, and commit it to a layer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aos.build.layers.upper import settle
from aos.build.progress.events import Failed, Finished, Output, Progress, Started, Waiting
from aos.build.solve.outcome import Outcome
from aos.build.solve.threads import in_thread
from aos.build.steps.task import Surroundings, Task, Traces, state_tree
from aos.build.workspace.workspace import remove_tree
from aos.errors import Internal

if TYPE_CHECKING:
    from pathlib import Path

    from aos.build.plan.graph import State, Vertex
    from aos.build.solve.flight import Flights
    from aos.build.solve.results import Results
    from aos.build.solve.solve import Turn
    from aos.clock import Clock
    from aos.oci.layer import Layer

__all__ = ["Executor"]


class Executor:
    """Executes the vertices of one plan."""

    def __init__(
        self,
        results: Results,
        around: Surroundings,
        flights: Flights,
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._results = results
        self._around = around
        self._flights = flights
        self._progress = progress
        self._clock = clock
        self._fetching = asyncio.Lock()
        """Steps at the same time may need the same layer."""

    async def execute(self, vertex: Vertex, turn: Turn) -> State:
        """The vertex's state: from the cache when its parents, executed meanwhile, gave what they gave before, or
        when another build executes it at this time."""
        results = self._results
        if results.lookup.forced(vertex):
            async with turn:
                return await self._execute(vertex)
        key = results.lookup.key(vertex)
        async with turn:
            if (found := results.find(vertex)) is not None:
                return found
            if (flight := self._flights.try_begin(key)) is not None:
                with flight:
                    return results.find(vertex) or await self._execute(vertex)
        self._progress.emit(Waiting(vertex.index))
        with await self._flights.wait(key):
            if (found := results.find(vertex, "shared")) is not None:
                return found
            async with turn:
                return await self._execute(vertex)

    async def _execute(self, vertex: Vertex) -> State:
        self._progress.emit(Started(vertex.index))
        began = self._clock.monotonic()
        try:
            layer = await self._layer(vertex)
        except Exception:  # a cancelled one did not fail
            seconds = self._clock.monotonic() - began
            self._results.outcomes[vertex.index] = Outcome("failed", seconds)
            self._progress.emit(Failed(vertex.index, seconds))
            raise
        seconds = self._clock.monotonic() - began
        state = self._results.keep(vertex, layer, seconds)
        self._progress.emit(Finished(vertex.index, seconds, layer.size if layer else 0))
        return state

    async def _layer(self, vertex: Vertex) -> Layer | None:
        """Do the step's work and commit it; None when it changed nothing.

        What the step wrote becomes the layer's snapshot: the next step stands on it without unpacking anything."""
        upper = self._around.workspace.fresh("upper")
        since_ns = upper.stat().st_mtime_ns  # the file system's clock, which the process's may not follow
        plan, below, reads = self._results.plan, self._results.below(vertex), self._results.reads(vertex)
        async with self._fetching:
            await in_thread(lambda: self._results.lookup.fetch((below, *reads)))
        task = Task(
            vertex=vertex,
            below=below,
            reads=reads,
            upper=upper,
            epoch=plan.epoch,
            compression=plan.compression,
            platform=plan.platform,
            final=vertex.stage == plan.final_stage,
            around=self._around,
            output=lambda line: self._progress.emit(Output(vertex.index, line)),
            lower=await state_tree(self._around.content, below),
        )
        try:
            layer = await _perform(task)
            if isinstance(layer, Traces):
                traces = layer
                layer = await in_thread(lambda: self._commit(task, traces, since_ns))
            if layer is not None:
                self._results.lookup.hold(layer.digest)
            return layer
        finally:
            await in_thread(lambda: _discard(upper))

    def _commit(self, task: Task, traces: Traces, since_ns: int) -> Layer | None:
        from aos.build.layers.commit import write_layer
        from aos.content.snapshots import sync_tree
        from aos.content.worker import Worker

        own = settle(
            task.upper,
            task.lower,
            epoch=task.epoch,
            since_ns=since_ns,
            mounts=traces.mounts,
            drop=traces.drop,
            restamp=traces.restamp,
        )
        if not any(task.upper.iterdir()):
            return None
        content = self._around.content
        syncing = Worker(sync_tree)
        try:
            syncing.put(task.upper)
            layer = write_layer(task.upper, content.blobs, epoch=task.epoch, compression=task.compression)
            syncing.finish()
        finally:
            syncing.end()
        if own:
            content.snapshots.adopt(layer, task.upper)
        return layer


async def _perform(task: Task) -> Traces | Layer | None:
    """What the step left in its upper directory, or, of one that needs none, the layer it made."""
    step = task.vertex.step
    if step is None:
        raise Internal(f"vertex {task.vertex.label} has nothing to execute")
    match step.kind:
        case "copy":
            from aos.build.steps.copy import execute_copy

            return await execute_copy(task, step)
        case "run":
            from aos.build.steps.run import execute_run

            return await execute_run(task, step)
        case "plugin":
            from aos.build.steps.plugin import execute_plugin

            return await execute_plugin(task, step)
        case "install" if step.tool == "pip":
            from aos.build.steps.install_pip import execute_pip

            return await execute_pip(task, step)
        case "install":
            from aos.build.steps.install_apt import execute_apt

            return await execute_apt(task, step)


def _discard(upper: Path) -> None:
    remove_tree(upper)
    remove_tree(upper.with_name(upper.name + ".work"))
