"""The plan: a definition and the digests of its inputs become vertices and edges. Pure.

    stage    a base and steps, as the definition has them
    vertex   one operation of the plan: resolving a base, or one step of a stage
    state    what a vertex leaves: layers, and the environment that steps on top of it see

What a vertex's cache key is made of is `keys.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.agentfile.definition import Definition, Stage, Step
    from aos.content.compression import Compression
    from aos.oci.digest import Digest
    from aos.package import BuiltLayer

__all__ = [
    "EMPTY",
    "Plan",
    "State",
    "Vertex",
    "is_reference",
    "known_stage",
    "make_plan",
    "needed_stages",
    "sources_of",
    "step_text",
]


@dataclass(frozen=True, slots=True)
class State:
    """A file system in the making, and the environment its base gives to what runs in it."""

    layers: tuple[BuiltLayer, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    work_dir: str = ""
    base: Digest | None = None
    """The manifest of the image at the bottom; None on `scratch`."""

    chain: str = ""
    """Identifies the layers, as the OCI image specification's ChainID does ("config.md#layer-chainid"). Kept up by
    `on_top`: keys ask for it at every vertex."""

    def on_top(self, layer: BuiltLayer | None) -> State:
        """This state with one more layer; None: the step changed nothing."""
        if layer is None:
            return self
        chain = str(layer.layer.diff_id)
        if self.chain:
            chain = "sha256:" + hashlib.sha256(f"{self.chain} {chain}".encode()).hexdigest()
        return State((*self.layers, layer), self.env, self.work_dir, self.base, chain)


EMPTY = State()
"""`from: scratch`."""


@dataclass(frozen=True, slots=True)
class Vertex:
    index: int
    stage: str
    label: str
    """For people: `[stage 2/3] run make`."""
    operation: Mapping[str, object]
    """JSON: what the Agentfile says of it, without the names of stages and files, which shape nothing."""
    inputs: Mapping[str, object] = field(default_factory=dict)
    """JSON: what it reads from outside the plan, by the name of the component of its key."""
    config_env: tuple[tuple[str, str], ...] = ()
    """The package's environment, where the step sees it."""
    config_work_dir: str = ""
    below: int | None = None
    """The vertex whose state this one stands on; None: nothing."""
    reads: tuple[int | None, ...] = ()
    """The vertices whose files the step takes, in the order of `sources_of`; None: an empty one."""
    after: tuple[int, ...] = ()
    """Must have succeeded before, without being an input (`dependsOn`)."""
    step: Step | None = None
    """None: the vertex resolves `base`."""
    position: int = 0
    """Of the step in its stage."""
    base: str = ""
    created_by: str = ""
    location: str = ""

    @property
    def place(self) -> tuple[str, int]:
        """Where the step stands in the definition: stage and position."""
        return self.stage, self.position

    @property
    def parents(self) -> tuple[int, ...]:
        found = (*self.after, *(parent for parent in (self.below, *self.reads) if parent is not None))
        return tuple(sorted(set(found)))


@dataclass(frozen=True, slots=True)
class Plan:
    """Vertices in a deterministic order in which everything comes after what it needs."""

    vertices: tuple[Vertex, ...]
    final: int | None
    """The vertex whose state becomes the package; None: an empty one."""
    final_stage: str
    platform: str
    epoch: int
    """Seconds since 1970: SOURCE_DATE_EPOCH."""
    compression: Compression = "gzip"
    """Of the layers that the build makes; those of a base stay as they are."""


def make_plan(
    definition: Definition,
    inputs: Mapping[tuple[str, int], Mapping[str, object]],
    *,
    platform: str,
    epoch: int,
    target: str | None = None,
    compression: Compression = "gzip",
) -> Plan:
    """Lay out what the last stage needs, or the stage `target`. `inputs`: by stage and step position, what the step
    reads from outside the plan (context files, tools, what a plugin declares): JSON by the name of its component.

    Stages that it does not need, directly or by `dependsOn`, are left out.
    """
    needed = needed_stages(definition, target)
    vertices: list[Vertex] = []
    tops: dict[str, int | None] = {}
    bases: dict[str, int] = {}
    for stage in definition.stages:
        if stage.name not in needed:
            continue
        below = _find(stage.base, stage, tops, bases, vertices)
        after = tuple(top for name in stage.depends_on if (top := tops[name]) is not None)
        for position, step in enumerate(stage.steps):
            text = step_text(step)
            reads = tuple(_find(name, stage, tops, bases, vertices) for name in sources_of(step))
            own = stage is definition.final
            vertices.append(
                Vertex(
                    index=len(vertices),
                    stage=stage.name,
                    label=f"[{stage.name + ' ' if stage.name else ''}{position + 1}/{len(stage.steps)}] {text}",
                    operation=_operation(step),
                    inputs=_inputs(stage, position, inputs),
                    config_env=definition.config.env if own and step.kind == "run" else (),
                    config_work_dir=definition.config.work_dir
                    if own and step.kind in ("run", "copy")
                    else "",
                    below=below,
                    reads=reads,
                    after=after,
                    step=step,
                    position=position,
                    created_by=text,
                    location=stage.location_of(position),
                )
            )
            below = len(vertices) - 1
        tops[stage.name] = below
    final = tops[definition.final.name if target is None else target]
    return Plan(tuple(vertices), final, definition.final.name, platform, epoch, compression)


def _inputs(
    stage: Stage, position: int, inputs: Mapping[tuple[str, int], Mapping[str, object]]
) -> Mapping[str, object]:
    """What a step reads from outside, the build arguments in its texts included."""
    found = inputs.get((stage.name, position), {})
    arguments = dict(stage.arguments[position]) if stage.arguments else {}
    return {**found, "arguments": arguments} if arguments else found


def sources_of(step: Step) -> tuple[str, ...]:
    """The stages and references whose files a step takes, beside what it stands on."""
    if step.kind == "copy":
        return (step.from_stage,) if step.from_stage else ()
    if step.kind == "run":
        return tuple(mount.from_stage for mount in step.mounts if mount.from_stage)
    return ()


def step_text(step: Step) -> str:
    """One line for people and for the image's history; says nothing that is not in the Agentfile."""
    match step.kind:
        case "copy":
            origin = f"--from={step.from_stage} " if step.from_stage else ""
            text = f"copy {origin}{' '.join(step.src)} {step.dest}"
        case "install":
            words = (*step.packages, *(("-r", step.requirements) if step.requirements else ()))
            words += ("--project", step.project) if step.project else ()
            text = f"install {step.tool} {' '.join(words)}"
        case "run":
            shell = len(step.args) == 3 and step.args[:2] == ("/bin/sh", "-c")
            text = f"run {step.args[2] if shell else json.dumps(list(step.args), ensure_ascii=False)}"
        case "plugin":
            options = json.dumps(dict(step.options), sort_keys=True, ensure_ascii=False)
            text = f"plugin {step.name} {options}" if step.options else f"plugin {step.name}"
    return " ".join(text.split())


def _operation(step: Step) -> dict[str, object]:
    """The step's fields but for defaults. Stages and context files have their own components: their content."""
    operation = _plain(step)
    operation["kind"] = step.kind
    if step.kind == "copy":
        operation["from_stage"] = bool(step.from_stage)
        if not step.from_stage:
            del operation["src"]
    elif step.kind == "run":
        for mount, plain in zip(step.mounts, operation.get("mounts", ()), strict=True):
            plain["from_stage"] = bool(mount.from_stage)
    return operation


def _plain(value: Any) -> dict[str, Any]:
    def plain(item: Any) -> Any:
        if isinstance(item, tuple):
            return [plain(one) for one in item]
        return _plain(item) if is_dataclass(item) else item

    found = ((one.name, getattr(value, one.name), one.default) for one in fields(value))
    return {name: plain(item) for name, item, default in found if item != default}


def needed_stages(definition: Definition, target: str | None = None) -> set[str]:
    """The names of the stages that the last one, or `target`, reaches. Raise InvalidArgument (`stage-unknown`)."""
    by_name = {stage.name: stage for stage in definition.stages}
    needed: set[str] = set()
    pending = [definition.final.name if target is None else target]
    known_stage(definition, pending[0])
    while pending:
        name = pending.pop()
        if name in needed:
            continue
        needed.add(name)
        stage = by_name[name]
        wanted = [*stage.depends_on]
        if stage.base in by_name and stage.base != name:
            wanted.append(stage.base)
        sources = (source for step in stage.steps for source in sources_of(step))
        wanted += [source for source in sources if source in by_name or not is_reference(source)]
        for other in filter(None, wanted):
            known_stage(definition, other, stage.location)
            pending.append(other)
    return needed


def known_stage(definition: Definition, name: str, location: str = "") -> None:
    """Raise InvalidArgument (`stage-unknown`) unless there is a stage of that name."""
    names = [stage.name for stage in definition.stages]
    if name not in names:
        raise InvalidArgument(
            f"{location or 'Agentfile'}: there is no stage {name!r}",
            code="stage-unknown",
            hint="stages: " + (", ".join(sorted(filter(None, names))) or "there are none"),
            stage=name,
        )


def is_reference(source: str) -> bool:
    """Whether a step's `from` that names no stage can mean a package, an image or a layout."""
    return any(mark in source for mark in "/:@")


def _find(
    source: str,
    stage: Stage,
    tops: Mapping[str, int | None],
    bases: dict[str, int],
    vertices: list[Vertex],
) -> int | None:
    """The vertex behind a `from`; adds one when it comes from outside the definition."""
    if source in ("", "scratch"):
        return None
    if source in tops:
        return tops[source]
    if source not in bases:
        bases[source] = len(vertices)
        text = f"from {source}"
        vertices.append(
            Vertex(
                index=len(vertices),
                stage=stage.name,
                label=f"[{stage.name}] {text}" if stage.name else text,
                operation={"from": source},
                base=source,
                created_by=text,
                location=stage.location,
            )
        )
    return bases[source]
