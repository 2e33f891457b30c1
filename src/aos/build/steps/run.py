"""`run`: a command in a sandbox of the default runtime. No network unless the step asks for it."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from aos.build.host.network import network_mounts, proxy_environment
from aos.build.layers.upper import BUILD_DIRECTORY
from aos.build.steps.sandbox import Command, run_command
from aos.build.steps.task import Traces, step_failed
from aos.errors import AosError, FailedPrecondition
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.agentfile.definition import Run
    from aos.build.cache.mounts import Sharing
    from aos.build.steps.task import Task

__all__ = ["execute_run"]

_DROP = ("var/cache/ldconfig/aux-cache",)  # holds inode numbers and times; ldconfig makes it anew
_AGENTS = f"{BUILD_DIRECTORY}/ssh"
_STRONGER: Mapping[Sharing, int] = {"private": 0, "shared": 1, "locked": 2}


async def execute_run(task: Task, step: Run) -> Traces:
    """The command sees the base's environment; in the package's own stage its `config` too, as an agent would."""
    around, of_host = task.around, step.network == "host"
    work_dir = step.work_dir or (around.config_work_dir if task.final else "") or task.below.work_dir or "/"
    env = (
        *task.below.env,
        ("SOURCE_DATE_EPOCH", str(task.epoch)),
        ("PYTHONDONTWRITEBYTECODE", "1"),  # byte code is not bit-stable
        *(proxy_environment(around.environ) if of_host else ()),
        *(around.config_env if task.final else ()),
        *step.env,
    )
    mounts = [*network_mounts()] if of_host else []
    args, redact = step.args, None
    async with contextlib.AsyncExitStack() as stack:
        if step.secrets:
            from aos.build.steps.secret_mounts import secret_mounts

            secrets = secret_mounts(task, step)
            mounts += secrets.mounts
            args, redact = secrets.args, secrets.redaction
        if step.ssh:
            mounts += await _agents(task, step, stack)
            env = (*env, ("SSH_AUTH_SOCK", f"{_AGENTS}/{step.ssh[0]}"))
        if step.caches:
            mounts += await _caches(task, step, stack)
        if step.mounts:
            from aos.build.steps.bind_mounts import bind_mounts, make_places

            binds = await bind_mounts(task, step)
            make_places(task, binds, mounts)
            mounts += binds
        mounts.sort(key=lambda mount: mount.target.count("/"))  # one inside of another comes after it
        command = Command(args, env, work_dir, step.user, tuple(mounts), step.network)
        await run_command(task, command, redact)
    return Traces(mounts=tuple(mount.target for mount in reversed(mounts)), drop=_DROP)


async def _caches(task: Task, step: Run, stack: contextlib.AsyncExitStack) -> list[Mount]:
    """Take what the step shares with others, always in the order of ids, so that no two steps wait for each other."""
    from aos.build.cache.mounts import take
    from aos.build.workspace.sweep import sweep

    around, owner = task.around, _owner(task, step)
    directories = {}
    for id in sorted({cache.id for cache in step.caches}):
        sharing = max((c.sharing for c in step.caches if c.id == id), key=lambda one: _STRONGER[one])
        waiting = functools.partial(task.output, f"waiting for the cache {id!r}, which another step uses")
        directories[id] = await stack.enter_async_context(
            take(around.mounts, "run", id, sharing, owner=owner, waiting=waiting)
        )
    # A build that was killed gives its caches back at once, its sandboxes only now.
    await sweep(around.workspace.directory.parent, around.runtime)
    return [Mount("bind", cache.target, directories[cache.id]) for cache in step.caches]


async def _agents(task: Task, step: Run, stack: contextlib.AsyncExitStack) -> list[Mount]:
    from aos.build.steps.ssh_agents import forward_agent

    around, owner, mounts = task.around, _owner(task, step), []
    for id in step.ssh:
        agent = around.ssh.get(id)
        if agent is None:
            where = f" ({task.vertex.location})" if task.vertex.location else ""
            raise FailedPrecondition(
                f"step {task.vertex.label}{where} needs the SSH agent {id!r}, which was not given",
                code="ssh-agent-missing",
                hint=f"aos build --ssh {id}, or --ssh {id}=SOCKET, or --ssh {id}=KEYFILE",
                step=task.vertex.created_by,
                stage=task.vertex.stage,
            )
        directory = around.workspace.fresh("ssh")
        socket = await stack.enter_async_context(forward_agent(agent, directory, owner))
        mounts.append(Mount("bind", f"{_AGENTS}/{id}", socket, read_only=True))
    return mounts


def _owner(task: Task, step: Run) -> tuple[int, int]:
    """The numbers of the step's user. Raise Aborted (`step-failed`)."""
    from aos.runtime.users import resolve_user

    try:
        user = resolve_user(step.user, task.lower)
    except AosError as error:
        raise step_failed(task.vertex, f"could not start: {error.message}", (), exit_code=127) from error
    return user.uid, user.gid
