"""`install: {pip: …}`: what the wheels hold becomes a layer, with byte code; no installer's notes, no dates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.build.steps.byte_code import compile_installed
from aos.build.steps.pip_lock import install_files, resolve
from aos.build.steps.task import Traces
from aos.build.steps.uv import FILES, WORK, open_uv

if TYPE_CHECKING:
    from aos.agentfile.definition import Install
    from aos.build.steps.task import Task
    from aos.build.steps.uv import Uv

__all__ = ["execute_pip"]

_INSTALL = ("pip", "install", "--break-system-packages")


async def execute_pip(task: Task, step: Install) -> Traces:
    uv = open_uv(task)
    for name, data in task.around.requirements[task.vertex.place].files.items():
        (uv.files / name).parent.mkdir(parents=True, exist_ok=True)
        (uv.files / name).write_bytes(data)
    deps = ("--no-deps",) if step.project else ()
    lock, args, network = task.lock, list(deps), step.network
    if lock is None or lock.pins is None:
        files = await _requirements(uv, step)
        args += [word for file in files for word in ("--requirement", file)]
        if lock is not None:
            lock.found = await resolve(uv, (*deps, *files), lock.prefer, network=network)
    if lock is not None:
        args = await install_files(uv, lock.pins if lock.pins is not None else lock.found, network=network)
        network = network and "--no-index" not in args
    await uv.run(*_INSTALL, *args, network=network)
    await compile_installed(uv)
    return Traces(mounts=uv.targets, restamp=True)


async def _requirements(uv: Uv, step: Install) -> list[str]:
    """The requirement files, as the sandbox sees them, that say all the step asks for."""
    if step.project:
        await _export_project(uv, step)
        return [f"{WORK}/project.txt"]
    (uv.files / "packages.txt").write_text("".join(f"{package}\n" for package in step.packages))
    files = [f"{FILES}/packages.txt"] if step.packages else []
    return [*files, f"{FILES}/{step.requirements}"] if step.requirements else files


async def _export_project(uv: Uv, step: Install) -> None:
    """Write what the project's lock says, with its hashes, to `WORK/project.txt`; the project itself is left out.

    With the project's own settings: another index, such as the host's mirror, would make its lock out of date."""
    await uv.run(
        "export",
        "--project",
        f"{FILES}/{step.project}",
        "--locked",
        "--no-dev",
        "--no-emit-project",
        "--no-header",
        "--no-annotate",
        "--quiet",
        "--output-file",
        f"{WORK}/project.txt",
        network=step.network,
        settings="",
    )
