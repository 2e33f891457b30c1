"""The secrets of a `run` step: as files in memory, or as variables of its process.

A variable cannot go the way of other variables: a sandbox's configuration lies on a disk, its environment in it. So
the step's shell reads the assignments from a file in memory and becomes the step's command.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.build.layers.upper import BUILD_DIRECTORY
from aos.content.tree import resolve
from aos.errors import FailedPrecondition, InvalidArgument
from aos.redaction import Redaction
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from aos.agentfile.definition import Run
    from aos.build.steps.task import Task

__all__ = ["SecretMounts", "secret_mounts"]

_VARIABLES = f"{BUILD_DIRECTORY}/variables"
_SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class SecretMounts:
    mounts: tuple[Mount, ...]
    args: tuple[str, ...]
    """The command that gives the step's command its secret variables."""
    redaction: Redaction


def secret_mounts(task: Task, step: Run) -> SecretMounts:
    """Raise FailedPrecondition (`secret-missing`, `shell-missing`), InvalidArgument (`secret-invalid`), and what
    reading a secret raises."""
    mounts, assignments, values = [], [], []
    for wanted in step.secrets:
        value = task.around.secrets.get(wanted.id)
        if value is None:
            if wanted.required:
                raise _missing(task, wanted.id)
            continue
        values.append(value)
        if wanted.target:
            mounts.append(Mount("file", wanted.target, data=value, mode=wanted.mode))
        if wanted.env:
            if b"\0" in value:
                raise InvalidArgument(
                    f"step {task.vertex.label}: the secret {wanted.id!r} holds a zero byte and cannot be a variable",
                    code="secret-invalid",
                    hint="take it as a file: leave out `env`",
                    secret=wanted.id,
                )
            text = value.decode(errors="surrogateescape").removesuffix("\n")
            assignments.append(f"export {wanted.env}={shlex.quote(text)}\n")
    if not assignments:
        return SecretMounts(tuple(mounts), step.args, Redaction(values))
    if task.lower.lstat(resolve(task.lower, _SHELL, follow_last=True)) is None:
        raise FailedPrecondition(
            f"step {task.vertex.label}: the image has no {_SHELL}, which gives a step its secret variables",
            code="shell-missing",
            hint="take the secrets as files: leave out `env`",
            step=task.vertex.created_by,
        )
    data = "".join(assignments).encode(errors="surrogateescape")
    mounts.append(Mount("file", _VARIABLES, data=data))
    args = (_SHELL, "-c", f'. {_VARIABLES} && exec "$@"', "sh", *step.args)
    return SecretMounts(tuple(mounts), args, Redaction(values))


def _missing(task: Task, id: str) -> FailedPrecondition:
    where = f" ({task.vertex.location})" if task.vertex.location else ""
    given = ", ".join(sorted(task.around.secrets.sources))
    return FailedPrecondition(
        f"step {task.vertex.label}{where} needs the secret {id!r}, which was not given"
        + (f" (given: {given})" if given else ""),
        code="secret-missing",
        hint=f"aos build --secret id={id},src=FILE, or --secret id={id},env=VARIABLE",
        secret=id,
        step=task.vertex.created_by,
        stage=task.vertex.stage,
    )
