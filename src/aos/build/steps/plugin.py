"""`plugin`: hand the step to whoever wrote it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aos.build.host.command import run_on_host
from aos.build.plugins import PluginTask
from aos.build.steps.task import Traces, step_failed
from aos.errors import Aborted, AosError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aos.agentfile.definition import Plugin
    from aos.build.steps.task import Task

__all__ = ["execute_plugin"]


async def execute_plugin(task: Task, step: Plugin) -> Traces:
    plugin = task.around.plugins.get(step.name)
    cache = task.around.mounts / f"plugin-{step.name}"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run(args: Sequence[str], environ: Mapping[str, str]) -> None:
        code, tail = await run_on_host(args, environ, task.output)
        if code != 0:
            raise step_failed(
                task.vertex, f"failed: {args[0]} ended with exit code {code}", tail, exit_code=code
            )

    work = PluginTask(
        options=dict(step.options),
        root=task.upper,
        below=task.lower,
        epoch=task.epoch,
        platform=task.platform,
        environ=task.around.environ,
        cache=cache,
        scratch=task.around.workspace.fresh(f"plugin-{step.name}"),
        output=task.output,
        run=run,
    )
    try:
        await plugin.execute(work)
    except (AosError, asyncio.CancelledError, OSError):
        raise
    except Exception as error:
        raise Aborted(
            f"step {task.vertex.label} ({task.vertex.location}): plugin {step.name!r} failed: "
            f"{type(error).__name__}: {error}",
            code="plugin-failed",
            hint="this is a defect of the plugin; tell its author",
            plugin=step.name,
        ) from error
    return Traces()
