"""`install: {apt: […]}`: the target's own apt and dpkg, with the host's archives lent to them.

The host's archives are used when host and target are the same distribution (see `host/apt.py`); otherwise the
target's own sources are. Package lists and archives are cache mounts; logs and caches that tell times or orders
are kept out of the layer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aos.agentfile.pins import DebianPackage
from aos.build.cache.mounts import take
from aos.build.host.apt import Release, acquire_options, auth_files, host_archives, read_release, trusted_keys
from aos.build.host.debs import (
    PREFERENCES,
    download_words,
    keep_downloaded,
    lay_out,
    missing_packages,
    take_up,
)
from aos.build.host.network import network_mounts, proxy_environment
from aos.build.layers.upper import BUILD_DIRECTORY
from aos.build.solve.threads import in_thread
from aos.build.steps.sandbox import Command, run_command
from aos.build.steps.task import Traces, lock_file_gone
from aos.content.tree import resolve
from aos.errors import Aborted, FailedPrecondition
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aos.agentfile.definition import Install
    from aos.build.host.apt import Archive
    from aos.build.steps.task import Task

__all__ = ["DPKG_TRACES", "execute_apt"]

_FILES, _WORK = f"{BUILD_DIRECTORY}/apt", f"{BUILD_DIRECTORY}/apt-work"
_INSTALL = "apt-get install -q -y --no-install-recommends"
_OFFLINE_SCRIPT = f'exec {_INSTALL} --no-download -- "$@"'
_SCRIPT = f'apt-get update -q && exec {_INSTALL} -- "$@"'
_DOWNLOAD_SCRIPT = f'apt-get update -q && exec {_INSTALL} --download-only -- "$@"'
_FETCH_SCRIPT = f'apt-get update -q && cd {_WORK} && exec apt-get download -q -- "$@"'

_NOISE = r"(Get|Hit|Ign):\d|Fetched |Reading |Building |Selecting |Preparing |Unpacking |Need to |After this |\(Reading "

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
    apt = _Apt(task, _target_release(task), step)
    lock = task.lock
    if lock is None:
        await apt.install_unlocked()
    else:
        if lock.pins is None:
            lock.found = await apt.resolve(lock.prefer)
        await apt.install(lock.found if lock.pins is None else lock.pins)
    return Traces(mounts=apt.targets, drop=DPKG_TRACES)


class _Apt:
    """The target's apt for one step, with the host's archives or with kept packages alone."""

    def __init__(self, task: Task, release: Release, step: Install) -> None:
        self._task = task
        self._release = release
        self._step = step
        self._kept = task.around.kept
        self.targets: tuple[str, ...] = ()
        """Where anything was mounted."""

    async def resolve(self, prefer: Sequence[str]) -> tuple[str, ...]:
        """Let apt decide what the names mean, download it and keep it: its pins."""
        archives = self._task.around.workspace.fresh("archives")
        preferred = [DebianPackage.parse(line) for line in prefer]
        absent = await in_thread(lambda: missing_packages(self._kept, preferred))
        here = [one for one in preferred if one not in absent]
        async with self._cache() as cache:
            await self.run(_DOWNLOAD_SCRIPT, self._step.packages, cache / "lists", archives, preferred=here)
            return await in_thread(lambda: take_up(self._kept, archives, cache / "lists"))

    async def install(self, pins: Sequence[str]) -> None:
        """Install from an archive that holds these packages and nothing else, without a network."""
        packages = [DebianPackage.parse(line) for line in pins]
        absent = await in_thread(lambda: missing_packages(self._kept, packages))
        if absent:
            work = self._task.around.workspace.fresh("apt-work")
            try:
                async with self._cache() as cache:
                    places = cache / "lists", cache / "archives"
                    await self.run(_FETCH_SCRIPT, download_words(absent), *places, work=work)
            except Aborted as error:
                raise lock_file_gone(self._task.vertex, error.message, absent[0].name) from error
            where = f"step {self._task.vertex.label}"
            await in_thread(lambda: keep_downloaded(self._kept, work, absent, where))
        self._kept.pin(pins)
        names = [name.partition("/")[0] for name in self._step.packages]  # the archive has no releases
        fresh = self._task.around.workspace.fresh
        await self.run(_SCRIPT, names, fresh("lists"), fresh("archives"), only=packages)

    async def install_unlocked(self) -> None:
        """Install what the archives have now."""
        script = _SCRIPT if self._step.network else _OFFLINE_SCRIPT
        async with self._cache() as cache:
            await self.run(script, self._step.packages, cache / "lists", cache / "archives")

    @contextlib.asynccontextmanager
    async def _cache(self) -> AsyncIterator[Path]:
        """Lists and archives of earlier builds. Locked: apt's own lock on its lists fails at once instead of waiting."""
        release = self._release
        name = f"{release.id}-{release.codename}" if release.codename else "unknown"
        waiting = functools.partial(self._task.output, "waiting for apt's cache, which another step uses")
        async with take(self._task.around.mounts, "apt", name, "locked", waiting=waiting) as cache:
            yield cache

    async def run(
        self,
        script: str,
        words: Sequence[str],
        lists: Path,
        archives: Path,
        *,
        work: Path | None = None,
        preferred: Sequence[DebianPackage] = (),
        only: Sequence[DebianPackage] | None = None,
    ) -> None:
        """Run a script in the target. `only`: with an archive of these packages, and without a network."""
        task = self._task
        network = self._step.network and only is None
        files = task.around.workspace.fresh("apt")
        mounts = [Mount("bind", _FILES, files, read_only=True)]
        for directory in (lists, archives):
            (directory / "partial").mkdir(parents=True, exist_ok=True)
        sources = (
            _Sources((), parts=False) if only is not None else _sources(task, self._release, files, mounts)
        )
        if only is not None or preferred:
            (files / "kept").mkdir()
            packages = preferred if only is None else only
            await in_thread(lambda: lay_out(self._kept, files / "kept", packages))
            how = "copy" if only is None else "file"  # what is copied counts as downloaded, and is taken up
            kept_line = f"deb [trusted=yes] {how}:{_FILES}/kept ./"
            sources = replace(sources, lines=(kept_line, *sources.lines))
        _write_settings(files, sources, network, preferring=bool(preferred))
        mounts.append(Mount("bind", "/usr/sbin/policy-rc.d", files / "policy-rc.d", read_only=True))
        mounts += [
            Mount("tmpfs", "/tmp"),
            Mount("tmpfs", "/run"),
            Mount("bind", "/var/lib/apt/lists", lists),
            Mount("bind", "/var/cache/apt/archives", archives),
            *([Mount("bind", _WORK, work)] if work else []),
            *(network_mounts() if network else ()),
        ]
        env = (
            *task.below.env,
            ("LC_ALL", "C.UTF-8"),
            ("HOME", "/root"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("SOURCE_DATE_EPOCH", str(task.epoch)),
            ("APT_CONFIG", f"{_FILES}/apt.conf"),
            *(proxy_environment(task.around.environ) if network else ()),
        )
        self.targets = tuple({*self.targets, *(mount.target for mount in mounts)})
        command = Command(
            ("/bin/sh", "-c", script, "install", *words),
            env,
            mounts=tuple(mounts),
            network="host" if network else "none",
            noise=_NOISE,
        )
        await run_command(task, command)


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


@dataclass(frozen=True, slots=True)
class _Sources:
    """What apt gets packages from."""

    lines: tuple[str, ...]
    """Of a sources.list."""
    parts: bool
    """The target's sources.list.d, too."""


def _sources(task: Task, release: Release, files: Path, mounts: list[Mount]) -> _Sources:
    """The host's archives with their keys in `files`; where it is another distribution, the target's own."""
    archives = host_archives(release)
    if not archives:
        path = resolve(task.lower, "etc/apt/sources.list", follow_last=True)
        if task.lower.lstat(path) is None:
            return _Sources((), parts=True)
        with os.fdopen(task.lower.open(path), errors="replace") as file:
            return _Sources(tuple(file.read().splitlines()), parts=True)
    lines = [_lend(archive, number, files, mounts).to_line() for number, archive in enumerate(archives)]
    (files / "trusted").mkdir()
    for key in trusted_keys():
        shutil.copyfile(key, files / "trusted" / key.name)
    _copy_target_keys(task, files / "trusted")
    return _Sources(tuple(lines), parts=False)


def _write_settings(files: Path, sources: _Sources, network: bool, *, preferring: bool) -> None:
    """Fill `files` with an apt configuration for the sandbox, and with a policy-rc.d(8)."""
    conf = [
        'APT::Sandbox::User "root";',
        'APT::Update::Error-Mode "any";',
        'Dpkg::Use-Pty "0";',
        'DPkg::Lock::Timeout "60";',
        'Dir::Log "/tmp";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Binary::apt-get::APT::Keep-Downloaded-Packages "true";',
        'Acquire::Languages "none";',
    ]
    if network:
        conf += acquire_options()
    (files / "sources.list").write_text("\n".join(sources.lines) + "\n")
    conf.append(f'Dir::Etc::sourcelist "{_FILES}/sources.list";')
    if not sources.parts:
        conf.append('Dir::Etc::sourceparts "-";')
    if (files / "trusted").exists():
        conf.append(f'Dir::Etc::trustedparts "{_FILES}/trusted";')
    if preferring:
        (files / "preferences").write_text(PREFERENCES)
        conf.append(f'Dir::Etc::preferences "{_FILES}/preferences";')
    (files / "auth").mkdir(mode=0o700)
    for number, file in enumerate(auth_files()):
        shutil.copyfile(file, files / "auth" / f"{number}.conf")
    conf.append(f'Dir::Etc::netrcparts "{_FILES}/auth";')
    (files / "apt.conf").write_text("\n".join(conf) + "\n")
    policy = files / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # invoke-rc.d(8): start no services
    policy.chmod(0o755)


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
        archive = replace(archive, uri=f"copy:{target}")  # so that what is used can be kept
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
