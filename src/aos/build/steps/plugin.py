"""`plugin`: hand the step to whoever wrote it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aos.build.cache.mounts import take
from aos.build.host.command import run_on_host
from aos.build.plugins import PluginStopped, PluginTask
from aos.build.steps.task import Traces, step_failed
from aos.errors import Aborted, AosError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aos.agentfile.definition import Plugin
    from aos.build.steps.task import Task

__all__ = ["execute_plugin"]


async def execute_plugin(task: Task, step: Plugin) -> Traces:
    plugin = task.around.plugins.get(step.name)

    async def run(args: Sequence[str], environ: Mapping[str, str]) -> None:
        code, tail = await run_on_host(args, environ, task.output)
        if code != 0:
            raise step_failed(
                task.vertex, f"failed: {args[0]} ended with exit code {code}", tail, exit_code=code
            )

    async with take(task.around.mounts, "plugin", step.name, "shared") as cache:
        work = PluginTask(
            options=dict(step.options),
            inputs=cast("Mapping[str, object]", task.vertex.inputs.get("plugin", {})),
            root=task.upper,
            below=task.lower,
            epoch=task.epoch,
            platform=task.platform,
            environ=task.around.environ,
            cache=cache,
            scratch=task.around.workspace.fresh(f"plugin-{step.name}"),
            output=task.output,
            kept=task.around.kept,
            lock=task.lock,
            run=run,
        )
        limit = task.around.plugins.execute_limit.total_seconds()
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                await plugin.execute(work)
        except TimeoutError as error:
            if not clock.expired():
                raise
            how = f"did not end within {limit:g} s and was stopped"
            raise _failed(task, step.name, how, code="plugin-timeout") from error
        except (AosError, asyncio.CancelledError, OSError):
            raise
        except PluginStopped as error:
            raise _failed(task, step.name, error.how, error.tail, error.code) from error
        except Exception as error:
            raise _failed(task, step.name, f"failed: {type(error).__name__}: {error}") from error
    return Traces()


def _failed(
    task: Task, name: str, how: str, tail: Sequence[str] = (), code: str = "plugin-failed"
) -> Aborted:
    where = f" ({task.vertex.location})" if task.vertex.location else ""
    said = "".join(f"\n    {line}" for line in tail)
    return Aborted(
        f"step {task.vertex.label}{where}: plugin {name!r} {how}"
        + (f"; its last output:{said}" if said else ""),
        code=code,
        hint="nothing of the step was kept; a defect of a plugin is for its author",
        plugin=name,
    )
