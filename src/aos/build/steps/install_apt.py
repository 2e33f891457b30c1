"""`install: {apt: […]}`: the target's own apt and dpkg, with the host's archives lent to them.

The host's archives are used when host and target are the same distribution (see `host/apt.py`); otherwise the
target's own sources are. Package lists and archives are cache mounts; logs and caches that tell times or orders
are kept out of the layer.
"""

from __future__ import annotations

import functools
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aos.build.cache_mounts import take
from aos.build.host.apt import Release, acquire_options, auth_files, host_archives, read_release, trusted_keys
from aos.build.host.network import network_mounts, proxy_environment
from aos.build.steps.sandbox import Command, run_command
from aos.build.steps.task import Traces
from aos.build.upper import BUILD_DIRECTORY
from aos.content.tree import resolve
from aos.errors import FailedPrecondition
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from aos.agentfile.definition import Install
    from aos.build.host.apt import Archive
    from aos.build.steps.task import Task

__all__ = ["DPKG_TRACES", "execute_apt"]

_FILES = f"{BUILD_DIRECTORY}/apt"
_SCRIPT = 'apt-get update -q && exec apt-get install -q -y --no-install-recommends -- "$@"'
_OFFLINE_SCRIPT = 'exec apt-get install -q -y --no-install-recommends --no-download -- "$@"'

DPKG_TRACES = (
    "var/log/**",
    "var/cache/apt/**",
    "var/lib/apt/lists/**",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
    "var/cache/fontconfig/**",
    "var/lib/systemd/catalog/database",
    "etc/ld.so.cache~",
)
"""Patterns of files that packaging tools write and that tell when, or in what order, something was done."""


async def execute_apt(task: Task, step: Install) -> Traces:
    release = _target_release(task)
    files = task.around.workspace.fresh("apt")
    mounts = [*_write_settings(task, files, release, step.network)]
    mounts += [Mount("tmpfs", "/tmp"), Mount("tmpfs", "/run"), *(network_mounts() if step.network else ())]
    env = (
        *task.below.env,
        ("LC_ALL", "C.UTF-8"),
        ("HOME", "/root"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("SOURCE_DATE_EPOCH", str(task.epoch)),
        ("APT_CONFIG", f"{_FILES}/apt.conf"),
        *(proxy_environment(task.around.environ) if step.network else ()),
    )
    args = ("/bin/sh", "-c", _SCRIPT if step.network else _OFFLINE_SCRIPT, "install", *step.packages)
    name = f"{release.id}-{release.codename}" if release.codename else "unknown"
    waiting = functools.partial(task.output, "waiting for apt's cache, which another step uses")
    # Locked: apt's own lock on its lists fails at once instead of waiting.
    async with take(task.around.mounts, "apt", name, "locked", waiting=waiting) as cache:
        for part in ("lists", "archives"):
            (cache / part / "partial").mkdir(parents=True, exist_ok=True)
        mounts += [
            Mount("bind", "/var/lib/apt/lists", cache / "lists"),
            Mount("bind", "/var/cache/apt/archives", cache / "archives"),
        ]
        await run_command(task, Command(args, env, mounts=tuple(mounts), network=step.network))
    return Traces(mounts=tuple(mount.target for mount in mounts), drop=DPKG_TRACES)


def _target_release(task: Task) -> Release:
    lower = task.lower
    if lower.lstat(resolve(lower, "usr/bin/apt-get", follow_last=True)) is None:
        raise FailedPrecondition(
            f"step {task.vertex.label}: there is no apt-get in the image, so Debian packages cannot be installed",
            code="apt-missing",
            hint="start from a Debian base: `plugin: {name: debian, with: {suite: bookworm}}`",
            step=task.vertex.created_by,
        )
    path = resolve(lower, "etc/os-release", follow_last=True)
    if lower.lstat(path) is None:
        return Release("", "")
    with os.fdopen(lower.open(path), errors="replace") as file:
        return read_release(file.read())


def _write_settings(task: Task, files: Path, release: Release, network: bool) -> list[Mount]:
    """Fill `files` with an apt configuration for the sandbox; the mounts that it needs."""
    mounts = [Mount("bind", _FILES, files, read_only=True)]
    conf = [
        'APT::Sandbox::User "root";',
        'APT::Update::Error-Mode "any";',
        'Dpkg::Use-Pty "0";',
        'DPkg::Lock::Timeout "60";',
        'Dir::Log "/tmp";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Binary::apt-get::APT::Keep-Downloaded-Packages "true";',
    ]
    if network:
        conf += acquire_options()
    archives = host_archives(release)
    if archives:
        lines: list[str] = []
        for number, archive in enumerate(archives):
            lines.append(_lend(archive, number, files, mounts).to_line())
        (files / "host.list").write_text("\n".join(lines) + "\n")
        (files / "trusted").mkdir()
        for key in trusted_keys():
            shutil.copyfile(key, files / "trusted" / key.name)
        _copy_target_keys(task, files / "trusted")
        conf += [
            f'Dir::Etc::sourcelist "{_FILES}/host.list";',
            'Dir::Etc::sourceparts "-";',
            f'Dir::Etc::trustedparts "{_FILES}/trusted";',
        ]
    (files / "auth").mkdir(mode=0o700)
    for number, file in enumerate(auth_files()):
        shutil.copyfile(file, files / "auth" / f"{number}.conf")
    conf.append(f'Dir::Etc::netrcparts "{_FILES}/auth";')
    (files / "apt.conf").write_text("\n".join(conf) + "\n")
    policy = files / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # invoke-rc.d(8): start no services
    policy.chmod(0o755)
    mounts.append(Mount("bind", "/usr/sbin/policy-rc.d", policy, read_only=True))
    return mounts


def _lend(archive: Archive, number: int, files: Path, mounts: list[Mount]) -> Archive:
    """The archive as the sandbox sees it: its keyring copied, a directory of the host mounted."""
    if archive.signed_by and Path(archive.signed_by).is_file():
        key = files / f"key-{number}{Path(archive.signed_by).suffix}"
        shutil.copyfile(archive.signed_by, key)
        archive = replace(archive, signed_by=f"{_FILES}/{key.name}")
    directory = archive.local_directory
    if directory is not None and directory.is_dir():
        target = f"{BUILD_DIRECTORY}/mirror/{number}"
        mounts.append(Mount("bind", target, directory.resolve(), read_only=True))
        archive = replace(archive, uri=f"file:{target}")
    return archive


def _copy_target_keys(task: Task, directory: Path) -> None:
    lower = task.lower
    parts = resolve(lower, "etc/apt/trusted.gpg.d", follow_last=True)
    for name in lower.names(parts) if lower.lstat(parts) else ():
        if name.endswith((".gpg", ".asc")) and not (directory / name).exists():
            path = resolve(lower, f"{parts}/{name}", follow_last=True)
            if lower.lstat(path) is not None:
                with os.fdopen(lower.open(path), "rb") as reading, (directory / name).open("wb") as writing:
                    shutil.copyfileobj(reading, writing)
