"""What an `install pip` reads of the context: requirement files with those they include, or a project's two files."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.build.context.select import select
from aos.content.tree import join, resolve
from aos.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from aos.agentfile.definition import Install
    from aos.build.context.files import Context

__all__ = ["Requirements", "read_requirements"]

_PROJECT_FILES = (
    ("pyproject.toml", "paths are relative to the build context"),
    ("uv.lock", "`uv lock` writes it"),
)
_INCLUDES = re.compile(r"\s*(-r|--requirement|-c|--constraint)(?:\s+|=|(?<=-[rc]))([^\s=]\S*)")
_COMMENT = re.compile(r"(^|\s)#.*")
_LARGEST = 16 << 20  # bytes; a requirements file beyond this is a mistake, a lock of 10,000 packages is not


@dataclass(slots=True)
class Requirements:
    """What one step asks pip for."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path in the context."""
    asked: list[str] = field(default_factory=list)
    """A requirement a line, whatever comments and line ends the files have; constraints begin with `-c `."""

    @property
    def digests(self) -> dict[str, str]:
        return {path: hashlib.sha256(data).hexdigest() for path, data in sorted(self.files.items())}


def read_requirements(context: Context, step: Install) -> Requirements:
    """Raise NotFound (`requirements-missing`), InvalidArgument (`requirements-invalid`)."""
    found = Requirements(asked=[" ".join(package.split()) for package in step.packages])
    if step.requirements:
        _read_file(context, step.requirements, "", found)
    if step.project:
        for name, hint in _PROJECT_FILES:
            path = resolve(context.tree, join(step.project, name), follow_last=True)
            found.files[path] = _bytes(context, path, hint)
        found.asked += [f"{path} sha256:{digest}" for path, digest in found.digests.items()]
    return found


def _read_file(context: Context, name: str, option: str, found: Requirements) -> None:
    """Add a requirements file and those it includes; a file counts once, as it was first met."""
    path = resolve(context.tree, name, follow_last=True)
    if path in found.files:
        return
    data = _bytes(context, path, "paths are relative to the build context")
    found.files[path] = data
    text = data.decode(errors="replace").replace("\\\r\n", " ").replace("\\\n", " ")
    for line in text.splitlines():
        include = _INCLUDES.match(line)
        if include and "://" not in include[2]:
            constraint = "-c " if option or include[1] in ("-c", "--constraint") else ""
            _read_file(context, join(path.rpartition("/")[0], include[2]), constraint, found)
        elif words := " ".join(_COMMENT.sub("", line).split()):
            found.asked.append(option + words)


def _bytes(context: Context, path: str, hint: str) -> bytes:
    if context.tree.lstat(path) is None:
        raise NotFound(
            f"install pip: {path!r} does not exist in the build context",
            code="requirements-missing",
            hint=hint,
            path=path,
        )
    sources = select(context.tree, (path,))
    if sources[0].is_directory:
        raise InvalidArgument(f"install pip: {path!r} is a directory", code="requirements-invalid", path=path)
    with os.fdopen(context.tree.open(path), "rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise InvalidArgument(
            f"install pip: {path!r} is larger than {_LARGEST >> 20} MiB",
            code="requirements-invalid",
            path=path,
        )
    return data
