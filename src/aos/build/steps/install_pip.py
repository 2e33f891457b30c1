"""`install: {pip: …}`: uv, lent by the host, run inside the target, so that the target's interpreter decides.

The layer holds what the wheels hold: no byte code, no installer's notes, no dates. uv's cache is a mount.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aos.build.host.network import network_mounts
from aos.build.host.pip import read_pip_settings
from aos.build.steps.sandbox import Command, run_command
from aos.build.steps.task import Traces
from aos.build.upper import BUILD_DIRECTORY
from aos.content.tree import resolve
from aos.errors import FailedPrecondition
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from aos.agentfile.definition import Install
    from aos.build.steps.task import Task

__all__ = ["execute_pip"]

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOOL, _CACHE, _FILES, _HOST = (f"{BUILD_DIRECTORY}/{name}" for name in ("uv", "uv-cache", "pip", "host"))
_PYTHONS = ("python3", "python")


async def execute_pip(task: Task, step: Install) -> Traces:
    path = task.env("PATH", _DEFAULT_PATH)
    python = _find_python(task, path)
    settings = read_pip_settings(task.around.environ, _HOST)
    files = task.around.workspace.fresh("pip")
    (files / "uv.toml").write_text(settings.to_toml())
    for name, data in task.around.requirements.get(task.vertex.place, {}).items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(data)
    cache = task.around.mounts / "uv"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounts = (
        Mount("tmpfs", "/tmp"),
        Mount("bind", _TOOL, find_uv(), read_only=True),
        Mount("bind", _CACHE, cache),
        Mount("bind", _FILES, files, read_only=True),
        *settings.mounts,
        *(network_mounts() if step.network else ()),
    )
    args = [_TOOL, "pip", "install", "--python", python, "--break-system-packages", *step.packages]
    if step.requirements:
        args += ["--requirement", f"{_FILES}/{step.requirements}"]
    env = (
        *task.below.env,
        ("PATH", path),
        ("HOME", "/tmp"),
        ("LC_ALL", "C.UTF-8"),
        ("SOURCE_DATE_EPOCH", str(task.epoch)),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("UV_CACHE_DIR", _CACHE),
        ("UV_CONFIG_FILE", f"{_FILES}/uv.toml"),
        ("UV_LINK_MODE", "copy"),
        ("UV_NO_INSTALLER_METADATA", "1"),
        ("UV_NO_PROGRESS", "1"),
        ("UV_PYTHON_DOWNLOADS", "never"),
        *settings.environment.items(),
        *(() if step.network else (("UV_OFFLINE", "1"),)),
    )
    await run_command(task, Command(tuple(args), env, mounts=mounts, network=step.network))
    return Traces(mounts=tuple(mount.target for mount in mounts), drop=("**/__pycache__/",), restamp=True)


def find_uv() -> Path:
    """The uv that was installed with AOS. Raise FailedPrecondition (`uv-missing`)."""
    try:
        from uv import find_uv_bin

        return Path(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise FailedPrecondition(
            "uv is not installed beside AOS, and `install: {pip: …}` needs it",
            code="uv-missing",
            hint="pip install uv (into the environment that holds aos)",
        ) from error


def _find_python(task: Task, path: str) -> str:
    for directory in path.split(":"):
        for name in _PYTHONS:
            candidate = f"{directory}/{name}"
            if directory and task.lower.lstat(resolve(task.lower, candidate, follow_last=True)) is not None:
                return candidate
    raise FailedPrecondition(
        f"step {task.vertex.label}: there is no Python interpreter in the image, so pip packages cannot be installed",
        code="python-missing",
        hint="start from a base with Python: `plugin: {name: debian, with: {include: [python3]}}`",
        step=task.vertex.created_by,
    )
