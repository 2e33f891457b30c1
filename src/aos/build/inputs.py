"""What a definition's steps read from outside the plan: looked at once, before anything is executed."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.build.host.versions import uv_version
from aos.build.ignore import IgnoreRules
from aos.build.plan import needed_stages
from aos.build.select import Context, Source, digest_of_sources, select
from aos.content.tree import join, resolve
from aos.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from aos.agentfile.definition import Definition
    from aos.build.plugins import Plugins

__all__ = ["Inputs", "find_agentfile", "gather_inputs"]

_INCLUDES = re.compile(r"\s*(?:-r|--requirement|-c|--constraint)(?:\s+|=)(\S+)")
AGENTFILES = ("Agentfile", "Agentfile.yaml", "Agentfile.yml", "Agentfile.json")
_LARGEST = 1 << 20  # bytes; a requirements file beyond this is a mistake


@dataclass(slots=True)
class Inputs:
    """By stage and step position."""

    components: dict[tuple[str, int], dict[str, object]] = field(default_factory=dict)
    """What of it is in the steps' cache keys, as `make_plan` takes it."""
    selected: dict[tuple[str, int], tuple[Source, ...]] = field(default_factory=dict)
    requirements: dict[tuple[str, int], dict[str, bytes]] = field(default_factory=dict)


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


def gather_inputs(definition: Definition, context: Context, plugins: Plugins) -> Inputs:
    """Raise what `select` raises, NotFound (`requirements-missing`), and what plugins say of their options."""
    found = Inputs()
    needed = needed_stages(definition)
    for stage in definition.stages:
        if stage.name not in needed:
            continue
        for position, step in enumerate(stage.steps):
            place = (stage.name, position)
            if step.kind == "copy" and not step.from_stage:
                sources = select(context.tree, step.src, rules=context.rules, hashed=True)
                found.selected[place] = sources
                found.components[place] = {"files": digest_of_sources(sources)}
            elif step.kind == "install" and step.requirements:
                files: dict[str, bytes] = {}
                _read_requirements(context, step.requirements, files)
                found.requirements[place] = files
                found.components[place] = {
                    "requirements": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
                }
            elif step.kind == "plugin":
                where = stage.location or "Agentfile"
                declared = dict(plugins.inputs(step.name, dict(step.options), where))
                tools = declared.pop("tools", {})
                found.components[place] = {"plugin": declared, "tools": tools}
            if step.kind == "install" and step.tool == "pip":
                found.components.setdefault(place, {})["tools"] = {"uv": uv_version()}
    return found


def _read_requirements(context: Context, name: str, files: dict[str, bytes]) -> None:
    """Read a requirements file and those it includes, by their paths in the context."""
    path = resolve(context.tree, name, follow_last=True)
    if path in files:
        return
    if context.tree.lstat(path) is None:
        raise NotFound(
            f"install pip: the requirements file {name!r} does not exist in the build context",
            code="requirements-missing",
            hint="paths are relative to the build context",
            path=name,
        )
    sources = select(context.tree, (path,), rules=IgnoreRules(), hashed=False)
    if sources[0].is_directory:
        raise InvalidArgument(f"install pip: {name!r} is a directory", code="requirements-invalid", path=name)
    with os.fdopen(context.tree.open(path), "rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise InvalidArgument(
            f"install pip: {name!r} is larger than 1 MiB", code="requirements-invalid", path=name
        )
    files[path] = data
    folder = path.rpartition("/")[0]
    for line in data.decode(errors="replace").splitlines():
        include = _INCLUDES.match(line)
        if include and "://" not in include[1]:
            _read_requirements(context, join(folder, include[1]), files)
