"""`run`: a command in a sandbox of the default runtime. No network unless the step asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.build.host.network import network_mounts, proxy_environment
from aos.build.steps.sandbox import Command, run_command
from aos.build.steps.task import Traces

if TYPE_CHECKING:
    from aos.agentfile.definition import Run
    from aos.build.steps.task import Task

__all__ = ["execute_run"]

_DROP = ("var/cache/ldconfig/aux-cache",)  # holds inode numbers and times; ldconfig makes it anew


async def execute_run(task: Task, step: Run) -> Traces:
    """The command sees the base's environment; in the package's own stage its `config` too, as an agent would."""
    around, networked = task.around, step.network != "none"
    work_dir = step.work_dir or (around.config_work_dir if task.final else "") or task.below.work_dir or "/"
    env = (
        *task.below.env,
        ("SOURCE_DATE_EPOCH", str(task.epoch)),
        ("PYTHONDONTWRITEBYTECODE", "1"),  # byte code is not bit-stable
        *(proxy_environment(around.environ) if networked else ()),
        *(around.config_env if task.final else ()),
        *step.env,
    )
    mounts = network_mounts() if networked else ()
    await run_command(task, Command(step.args, env, work_dir, step.user, mounts, networked))
    return Traces(mounts=tuple(mount.target for mount in mounts), drop=_DROP)
