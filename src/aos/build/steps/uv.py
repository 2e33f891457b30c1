"""uv, lent by the host and run inside the target, so that the target's interpreter decides.

uv's cache is a mount; what the host says of indexes, certificates and proxies holds inside and is kept nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.build.cache.mounts import take
from aos.build.host.network import network_mounts
from aos.build.host.pip import PipSettings, read_pip_settings
from aos.build.layers.upper import BUILD_DIRECTORY
from aos.build.steps.sandbox import Command, run_command
from aos.content.tree import resolve
from aos.errors import FailedPrecondition
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from aos.build.steps.task import Task

__all__ = ["FILES", "WORK", "Uv", "find_uv", "open_uv"]

FILES, WORK = f"{BUILD_DIRECTORY}/pip", f"{BUILD_DIRECTORY}/pip-work"
"""What the step gives to uv, read-only; where uv may write what the step reads."""
_TOOL, _CACHE, _HOST = (f"{BUILD_DIRECTORY}/{name}" for name in ("uv", "uv-cache", "host"))
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOISE = r"Using Python |Resolved \d|Prepared \d|Downloading |Downloaded |\s*$"
_PYTHONS = ("python3", "python")


@dataclass(frozen=True, slots=True)
class Uv:
    """uv for one step."""

    task: Task
    python: str
    """The target's interpreter."""
    settings: PipSettings
    files: Path
    """On the host: what the sandbox sees at `FILES`."""
    work: Path
    """On the host: what the sandbox sees at `WORK`."""
    mounts: tuple[Mount, ...]
    env: tuple[tuple[str, str], ...]

    async def run(self, *args: str, network: bool, settings: str = f"{FILES}/uv.toml") -> None:
        """Run `uv ARGS --python <the target's>`; no `settings`: those of the project. Raise Aborted (`step-failed`)."""
        env = [*self.env, *((("UV_CONFIG_FILE", settings),) if settings else ())]
        if not network:
            env.append(("UV_OFFLINE", "1"))
        mounts = (*self.mounts, *(network_mounts() if network else ()))
        command = (_TOOL, *args, "--python", self.python)
        async with take(self.task.around.mounts, "pip", "uv", "shared") as cache:
            mounts = (*mounts, Mount("bind", _CACHE, cache))
            await run_command(
                self.task,
                Command(
                    command, tuple(env), mounts=mounts, network="host" if network else "none", noise=_NOISE
                ),
            )

    async def run_python(self, *args: str) -> None:
        """Run the target's interpreter, isolated, with hashing fixed. Raise Aborted (`step-failed`)."""
        env = (*self.env, ("PYTHONHASHSEED", "0"))
        await run_command(self.task, Command((self.python, *args), env, mounts=self.mounts))

    @property
    def targets(self) -> tuple[str, ...]:
        """Where anything was mounted."""
        return tuple(mount.target for mount in (*self.mounts, *network_mounts()))


def open_uv(task: Task) -> Uv:
    """Raise FailedPrecondition (`python-missing`, `uv-missing`)."""
    path = task.env("PATH", _DEFAULT_PATH)
    python = _find_python(task, path)
    settings = read_pip_settings(task.around.environ, _HOST)
    files, work = task.around.workspace.fresh("pip"), task.around.workspace.fresh("pip-work")
    (files / "uv.toml").write_text(settings.to_toml())
    mounts = (
        Mount("tmpfs", "/tmp"),
        Mount("bind", _TOOL, find_uv(), read_only=True),
        Mount("bind", FILES, files, read_only=True),
        Mount("bind", WORK, work),
        *settings.mounts,
    )
    env = (
        *task.below.env,
        ("PATH", path),
        ("HOME", "/tmp"),
        ("LC_ALL", "C.UTF-8"),
        ("SOURCE_DATE_EPOCH", str(task.epoch)),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("UV_CACHE_DIR", _CACHE),
        ("UV_LINK_MODE", "copy"),
        ("UV_NO_INSTALLER_METADATA", "1"),
        ("UV_NO_PROGRESS", "1"),
        ("UV_PYTHON_DOWNLOADS", "never"),
        *settings.environment.items(),
    )
    return Uv(task, python, settings, files, work, mounts, env)


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
