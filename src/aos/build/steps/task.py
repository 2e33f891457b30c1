"""What a step is given to work with, and how it says that its command failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.build.progress.printable import printable
from aos.build.solve.threads import in_thread
from aos.content.protocol import IdMap
from aos.content.tree import LayerTree
from aos.errors import Aborted, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from aos.build.cache.kept import Kept
    from aos.build.context.files import Context
    from aos.build.context.requirements import Requirements
    from aos.build.context.select import Source
    from aos.build.lock.locked import StepLock
    from aos.build.plan.graph import State, Vertex
    from aos.build.plugins import Plugins
    from aos.build.steps.secrets import Secrets
    from aos.build.steps.ssh_agents import SshAgent
    from aos.build.workspace.workspace import Workspace
    from aos.content.compression import Compression
    from aos.content.store import ContentStore
    from aos.ids import IdSource
    from aos.oci.layer import Layer
    from aos.runtime.protocol import Runtime

__all__ = ["Surroundings", "Task", "Traces", "lock_file_gone", "state_tree", "step_failed"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all steps of one build share."""

    content: ContentStore
    runtime: Runtime
    context: Context
    workspace: Workspace
    mounts: Path
    """Where caches that outlive builds lie, one directory per cache mount."""
    environ: Mapping[str, str]
    ids: IdSource
    selected: Mapping[tuple[str, int], tuple[Source, ...]]
    """What each `copy` from the context takes, as the plan saw it."""
    requirements: Mapping[tuple[str, int], Requirements]
    """What each `install pip` asks for, as the plan saw it."""
    plugins: Plugins
    secrets: Secrets
    ssh: Mapping[str, SshAgent]
    kept: Kept
    locks: Mapping[tuple[str, int], StepLock]
    """What the lock means to each step that it concerns; empty without one."""
    config_env: tuple[tuple[str, str], ...] = ()
    """The environment of the package, for `run` steps of its own stage."""
    config_work_dir: str = ""


@dataclass(frozen=True, slots=True)
class Traces:
    """What a step leaves in its upper directory that is not its work (see `upper.settle`)."""

    mounts: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    restamp: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One vertex to execute: fill `upper`."""

    vertex: Vertex
    below: State
    reads: tuple[State, ...]
    """What `sources_of` the step are."""
    upper: Path
    epoch: int
    compression: Compression
    platform: str
    final: bool
    """The step belongs to the package's own stage."""
    around: Surroundings
    output: Callable[[str], None]
    """Takes a line for people to see while the step works."""
    lower: LayerTree = field(default_factory=lambda: LayerTree(()))
    """The files of `below`, unpacked."""

    @property
    def lower_layers(self) -> tuple[Layer, ...]:
        return tuple(item.layer for item in self.below.layers)

    @property
    def lock(self) -> StepLock | None:
        """What the lock means to this step; None: there is none."""
        return self.around.locks.get(self.vertex.place)

    def env(self, name: str, default: str = "") -> str:
        """A variable of the environment that the base gives."""
        return dict(self.below.env).get(name, default)


async def state_tree(content: ContentStore, state: State) -> LayerTree:
    """The files of `state`, unpacked where they were not yet (in a thread: it may take seconds)."""
    layers = [item.layer for item in state.layers]
    return LayerTree(await in_thread(lambda: content.snapshots.ensure(layers, IdMap.identity())))


def step_failed(vertex: Vertex, how: str, tail: Sequence[str], **subject: object) -> Aborted:
    """The error of a step whose command failed: what, where, how, and its last output."""
    where = f" ({vertex.location})" if vertex.location else ""
    words = "\n".join(f"    {printable(line)}" for line in tail)
    said = f"; its last output:\n{words}" if tail else "; it wrote nothing"
    return Aborted(
        f"step {vertex.label}{where} {how}{said}",
        code="step-failed",
        hint="nothing of the step was kept; steps before it are cached",
        step=vertex.created_by,
        stage=vertex.stage,
        **subject,
    )


def lock_file_gone(vertex: Vertex, why: str, name: str) -> NotFound:
    """The error of a step whose lock names a file that is neither kept nor to be had; `name`: of a pin."""
    return NotFound(
        f"step {vertex.label}: a file that the lock names is not kept here, and cannot be fetched: {why}",
        code="lock-file-gone",
        hint=f"where it is gone for good, `aos lock --upgrade {name}` locks what there is now",
        step=vertex.created_by,
        stage=vertex.stage,
    )
