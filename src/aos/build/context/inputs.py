"""What a definition's steps read from outside the plan: looked at once, before anything is executed."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.build.context.requirements import Requirements, read_requirements
from aos.build.context.select import Source, digest_of_sources, select
from aos.build.host.versions import uv_version
from aos.build.plan.graph import needed_stages
from aos.errors import AosError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aos.agentfile.definition import Definition, Plugin, Step
    from aos.build.context.files import Context
    from aos.build.plugins import Plugins

__all__ = ["Inputs", "find_agentfile", "gather_inputs"]

AGENTFILES = ("Agentfile", "Agentfile.yaml", "Agentfile.yml", "Agentfile.json")


@dataclass(slots=True)
class Inputs:
    """By stage and step position."""

    components: dict[tuple[str, int], dict[str, object]] = field(default_factory=dict)
    """What of it is in the steps' cache keys, as `make_plan` takes it."""
    selected: dict[tuple[str, int], tuple[Source, ...]] = field(default_factory=dict)
    requirements: dict[tuple[str, int], Requirements] = field(default_factory=dict)


def find_agentfile(context: Path) -> Path:
    """The Agentfile of a context. Raise NotFound (`context-not-found`, `agentfile-not-found`)."""
    if not context.is_dir():
        raise NotFound(
            f"the build context {str(context)!r} is not a directory",
            code="context-not-found",
            hint="aos build [CONTEXT]: name the directory that holds the Agentfile",
        )
    for name in AGENTFILES:
        if (context / name).exists():
            return context / name
    raise NotFound(
        f"there is no Agentfile in {str(context)!r}",
        code="agentfile-not-found",
        hint="`aos init` writes one; -f names another file",
    )


def gather_inputs(
    definition: Definition,
    context: Context,
    plugins: Plugins,
    target: str | None = None,
    *,
    known: Callable[[str, Plugin], Mapping[str, str]] = lambda stage, step: {},
) -> Inputs:
    """`known`: what a plugin of a stage need not look up. Raise what `select` and `read_requirements` raise and what
    plugins say of their options, each with the place of its step."""
    found = Inputs()
    needed = needed_stages(definition, target)
    for stage in definition.stages:
        if stage.name not in needed:
            continue
        for position, step in enumerate(stage.steps):
            with _told_at(where := stage.location_of(position)):
                place = (stage.name, position)
                _gather(found, place, step, where or "Agentfile", context, plugins, known)
    context.digests.save()
    return found


def _gather(
    found: Inputs,
    place: tuple[str, int],
    step: Step,
    where: str,
    context: Context,
    plugins: Plugins,
    known: Callable[[str, Plugin], Mapping[str, str]],
) -> None:
    if step.kind == "copy" and not step.from_stage:
        sources = select(context.tree, step.src, rules=context.rules, digests=context.digests)
        found.selected[place] = sources
        found.components[place] = {"files": digest_of_sources(sources)}
    elif step.kind == "install" and step.tool == "pip":
        found.requirements[place] = asked = read_requirements(context, step)
        found.components[place] = {"requirements": asked.digests, "tools": {"uv": uv_version()}}
    elif step.kind == "run" and any(not mount.from_stage for mount in step.mounts):
        seen = tuple(_visible(context, mount.source) for mount in step.mounts if not mount.from_stage)
        found.selected[place] = seen
        found.components[place] = {"files": [digest_of_sources((source,)) for source in seen]}
    elif step.kind == "plugin":
        declared = dict(plugins.inputs(step.name, dict(step.options), where, known(place[0], step)))
        tools = declared.pop("tools", {})
        found.components[place] = {"plugin": declared, "tools": tools}


@contextlib.contextmanager
def _told_at(where: str) -> Iterator[None]:
    """Let an error say where the step stands."""
    try:
        yield
    except AosError as error:
        if where and not error.message.startswith(where):
            error.message = f"{where}: {error.message}"
        raise


def _visible(context: Context, path: str) -> Source:
    """What a step sees of a path of the context that it mounts."""
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", path)  # a name, not a pattern
    try:
        (source,) = select(context.tree, (pattern,), rules=context.rules, digests=context.digests)
    except NotFound as error:
        raise NotFound(
            f"run: the build context has no {path!r} to mount",
            code="mount-source-missing",
            hint=error.hint,
            source=path,
        ) from error
    return source
