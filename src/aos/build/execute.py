"""Execute one vertex: prepare an upper directory, let the step fill it, and commit it to a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.build.cache import CacheEntry
from aos.build.keys import cache_key
from aos.build.lookup import built_layer, find_cached
from aos.build.plan import EMPTY
from aos.build.progress import Cached, Failed, Finished, Output, Progress, Started
from aos.build.steps.task import Surroundings, Task, Traces, need_root, state_tree
from aos.build.threads import in_thread
from aos.build.upper import settle
from aos.build.workspace import remove_tree
from aos.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aos.build.cache import Cache
    from aos.build.plan import Plan, State, Vertex
    from aos.clock import Clock
    from aos.oci.digest import Digest
    from aos.oci.layer import Layer

__all__ = ["Executor"]


class Executor:
    """Executes the vertices of one plan."""

    def __init__(
        self,
        plan: Plan,
        states: dict[int, State],
        around: Surroundings,
        cache: Cache,
        progress: Progress,
        clock: Clock,
        keep: Callable[[Digest], None],
        *,
        use_cache: bool,
    ) -> None:
        self._plan = plan
        self._states = states
        self._around = around
        self._cache = cache
        self._progress = progress
        self._clock = clock
        self._keep = keep
        self._use_cache = use_cache

    async def execute(self, vertex: Vertex) -> State:
        """The vertex's state: from the cache when its parents, executed meanwhile, gave what they gave before."""
        if self._use_cache:
            found = find_cached(vertex, self._plan, self._states, self._cache, self._keep)
            if found is not None:
                self._progress.emit(Cached(vertex.index))
                return found
        need_root()
        self._progress.emit(Started(vertex.index))
        began = self._clock.monotonic()
        try:
            layer = await self._layer(vertex)
        except Exception:  # a cancelled one did not fail
            self._progress.emit(Failed(vertex.index, self._clock.monotonic() - began))
            raise
        seconds = self._clock.monotonic() - began
        key = cache_key(vertex, self._plan, self._states)
        self._cache.put(key, CacheEntry(layer, vertex.created_by, seconds))
        self._progress.emit(Finished(vertex.index, seconds, layer.size if layer else 0))
        return self._below(vertex).on_top(built_layer(layer, vertex, key))

    def _below(self, vertex: Vertex) -> State:
        return EMPTY if vertex.below is None else self._states[vertex.below]

    async def _layer(self, vertex: Vertex) -> Layer | None:
        """Do the step's work and commit it; None when it changed nothing."""
        upper = self._around.workspace.fresh("upper")
        since_ns = upper.stat().st_mtime_ns  # the file system's clock, which the process's may not follow
        below = self._below(vertex)
        task = Task(
            vertex=vertex,
            below=below,
            reads=tuple(EMPTY if read is None else self._states[read] for read in vertex.reads),
            upper=upper,
            epoch=self._plan.epoch,
            platform=self._plan.platform,
            final=vertex.stage == self._plan.final_stage,
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
                self._keep(layer.digest)
            return layer
        finally:
            await in_thread(lambda: _discard(upper))

    def _commit(self, task: Task, traces: Traces, since_ns: int) -> Layer | None:
        from aos.build.layer import write_layer

        settle(
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
        return write_layer(task.upper, self._around.content.blobs, epoch=task.epoch)


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
