"""`plugin: {name: debian, with: {suite, include?, variant?, components?}}`: a Debian base made by mmdebstrap.

It is fetched through the host's mirrors and proxies; what lies in the layer names the distribution's public
archives, so that the same packages give the same bytes everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from aos.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aos.agentfile.pins import DebianPackage
    from aos.build.cache.kept import Kept
    from aos.build.plugins import PluginTask

__all__ = ["DebianPlugin"]

_VARIANTS = ("essential", "apt", "required", "minbase", "buildd", "standard")
_WORD = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9]+)?(?:=[A-Za-z0-9.+:~-]+)?")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_VERSION = 1
_ARCHITECTURES = {"linux/386": "i386", "linux/arm": "armhf", "linux/ppc64le": "ppc64el"}
"""Debian's names where they are not OCI's."""
_DROP = (
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
)
_EMPTIED = ("dev", "tmp", "var/tmp", "run", "var/log", "var/lib/apt/lists", "var/cache/apt", "proc", "sys")
_MIRROR_OF_LAYER = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {suites}
Components: {components}
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
_SECURITY_OF_LAYER = """
Types: deb
URIs: http://deb.debian.org/debian-security
Suites: {suite}-security
Components: {components}
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


@dataclass(frozen=True, slots=True)
class _Options:
    suite: str
    include: tuple[str, ...]
    variant: Literal["essential", "apt", "required", "minbase", "buildd", "standard"]
    components: tuple[str, ...]


class DebianPlugin:
    locks = True

    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        from aos.build.host.versions import mmdebstrap_version

        asked = _parse(options)
        return {
            "tools": {"mmdebstrap": mmdebstrap_version()},
            "version": _VERSION,
            "suite": asked.suite,
            "include": sorted(asked.include),
            "variant": asked.variant,
            "components": list(asked.components),
        }

    async def execute(self, task: PluginTask) -> None:
        import asyncio
        import shutil

        asked = _parse(task.options)
        if task.below.names(""):
            raise InvalidArgument(
                "plugin 'debian' makes a whole base and can only be the first step of a stage that is `from: scratch`",
                code="plugin-options",
            )
        if shutil.which("mmdebstrap", path=task.environ.get("PATH")) is None:
            raise FailedPrecondition(
                "mmdebstrap is not installed, and `plugin: debian` makes its base with it",
                code="mmdebstrap-missing",
                hint="sudo apt-get install mmdebstrap",
            )
        if task.lock is None:
            await task.run(_command(task, asked, _archives(asked)), _environment(task))
        elif task.lock.pins is not None:
            await _make_from_kept(task, asked, task.lock.pins)
        else:
            task.lock.found = await _make_and_keep(task, asked, task.lock.prefer)
        await asyncio.to_thread(_clean, task.root, asked)


def _archives(asked: _Options) -> list[str]:
    """Lines of sources.list: the host's archives of the suite, else the public ones.

    Raise FailedPrecondition (`keyring-missing`)."""
    from dataclasses import replace

    from aos.build.host.apt import Release, default_archives, host_archives

    release = Release("debian", asked.suite)
    lines = []
    for archive in host_archives(release) or default_archives(release):
        signed_by = archive.signed_by or (str(_KEYRING) if _KEYRING.is_file() else "")
        if not signed_by and not archive.trusted:
            raise FailedPrecondition(
                "the keys of the Debian archive are not on this host",
                code="keyring-missing",
                hint="sudo apt-get install debian-archive-keyring",
            )
        lines.append(replace(archive, signed_by=signed_by, components=asked.components).to_line())
    return lines


def _kept(task: PluginTask) -> Kept:
    assert task.kept is not None  # a plugin that is built in has it
    return task.kept


async def _make_from_kept(task: PluginTask, asked: _Options, pins: Sequence[str]) -> None:
    """Make the base of these packages and no others, without a network."""
    import asyncio

    from aos.agentfile.pins import DebianPackage
    from aos.build.host.debs import keep_downloaded, lay_out, missing_packages

    packages = [DebianPackage.parse(line) for line in pins]
    absent = await asyncio.to_thread(missing_packages, _kept(task), packages)
    if absent:
        await task.run(_download_command(task, asked, absent), _environment(task))
        await asyncio.to_thread(
            keep_downloaded, _kept(task), task.scratch / "downloads", absent, f"plugin debian {asked.suite}"
        )
    _kept(task).pin(pins)
    directory = task.scratch / "kept"
    directory.mkdir()
    await asyncio.to_thread(lay_out, _kept(task), directory, packages, asked.suite)
    await task.run(_command(task, asked, [f"deb [trusted=yes] copy:{directory} ./"]), _environment(task))


async def _make_and_keep(task: PluginTask, asked: _Options, prefer: Sequence[str]) -> tuple[str, ...]:
    """Make the base of what there is, near `prefer`, and keep its packages: their pins."""
    import asyncio

    from aos.agentfile.pins import DebianPackage
    from aos.build.host.debs import PREFERENCES, lay_out, missing_packages, take_up

    preferred = [DebianPackage.parse(line) for line in prefer]
    absent = await asyncio.to_thread(missing_packages, _kept(task), preferred)
    lines, options = _archives(asked), ["--skip=essential/unlink", "--skip=cleanup/apt"]
    if preferred:
        directory, preferences = task.scratch / "kept", task.scratch / "aos-preferences"
        directory.mkdir()
        here = [one for one in preferred if one not in absent]
        await asyncio.to_thread(lay_out, _kept(task), directory, here, asked.suite)
        preferences.write_text(PREFERENCES)
        lines = [f"deb [trusted=yes] copy:{directory} ./", *lines]
        options.append(f"--setup-hook=copy-in {preferences} /etc/apt/preferences.d/")
    await task.run(_command(task, asked, lines, options), _environment(task))
    (task.root / "etc/apt/preferences.d/aos-preferences").unlink(missing_ok=True)
    archives, lists = task.root / "var/cache/apt/archives", task.root / "var/lib/apt/lists"
    return await asyncio.to_thread(take_up, _kept(task), archives, lists)


def _command(
    task: PluginTask, asked: _Options, lines: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    from aos.build.host.apt import acquire_options, auth_files

    words = [f"--aptopt={line}" for line in acquire_options()]
    words += [f'--aptopt=Dir::Etc::netrc "{file}";' for file in auth_files()[:1]]
    if asked.include:
        words.append("--include=" + ",".join(sorted(asked.include)))
    return [
        "mmdebstrap",
        "--mode=root",
        f"--variant={asked.variant}",
        "--format=directory",
        '--aptopt=APT::Sandbox::User "root";',
        *words,
        *options,
        asked.suite,
        str(task.root),
        *lines,
    ]


def _download_command(task: PluginTask, asked: _Options, packages: Sequence[DebianPackage]) -> list[str]:
    """The host's apt, with a root of its own, fetches packages into `downloads` of the scratch directory."""
    from aos.build.host.apt import acquire_options
    from aos.build.host.debs import download_words

    root = task.scratch / "apt"
    for name in ("lists/partial", "cache/archives/partial", "etc"):
        (root / name).mkdir(parents=True)
    (task.scratch / "downloads").mkdir()
    (root / "status").touch()
    (root / "sources.list").write_text("\n".join(_archives(asked)) + "\n")
    conf = [
        f'Dir "{root}";',
        f'Dir::State "{root}";',
        f'Dir::State::status "{root}/status";',
        f'Dir::Cache "{root}/cache";',
        f'Dir::Etc "{root}/etc";',
        f'Dir::Etc::sourcelist "{root}/sources.list";',
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        f'APT::Architecture "{_ARCHITECTURES.get(task.platform, task.platform.rpartition("/")[2])}";',
        *acquire_options(),
    ]
    (root / "apt.conf").write_text("\n".join(conf) + "\n")
    script = 'export APT_CONFIG="$1"; cd "$2"; shift 2; apt-get update -q && exec apt-get download -q -- "$@"'
    words = [str(root / "apt.conf"), str(task.scratch / "downloads"), *download_words(packages)]
    return ["/bin/sh", "-c", script, "download", *words]


def _environment(task: PluginTask) -> dict[str, str]:
    """Nothing of the caller's but the way to the network: locale, umask and time zone do not shape the base."""
    from aos.build.host.network import proxy_environment

    return {
        "PATH": task.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": str(task.scratch),
        "TMPDIR": str(task.scratch),
        "DEBIAN_FRONTEND": "noninteractive",
        "SOURCE_DATE_EPOCH": str(task.epoch),
        **dict(proxy_environment(task.environ)),
    }


def _clean(target: Path, asked: _Options) -> None:
    """Take out what names this host or this moment; put in the public archives."""
    import shutil

    from aos.build.host.apt import ROLLING

    for name in _DROP:
        (target / name).unlink(missing_ok=True)
    for name in ("etc/hostname", "etc/resolv.conf"):
        path = target / name
        if path.is_symlink() or path.exists():
            path.unlink()
    for name in _EMPTIED:
        directory = target / name
        if directory.is_symlink() or not directory.is_dir():
            continue
        for child in directory.iterdir():
            if child.is_dir() and not child.is_symlink():
                if name in ("var/log",):
                    _remove_files(child)
                else:
                    shutil.rmtree(child)
            else:
                child.unlink()
    if not (target / "etc/apt").is_dir():
        return
    rolling = asked.suite in ROLLING
    suites = asked.suite if rolling else f"{asked.suite} {asked.suite}-updates"
    components = " ".join(asked.components)
    text = _MIRROR_OF_LAYER.format(suites=suites, components=components)
    if not rolling:
        text += _SECURITY_OF_LAYER.format(suite=asked.suite, components=components)
    sources = target / "etc/apt/sources.list.d/debian.sources"
    for file in sources.parent.iterdir():
        file.unlink()
    sources.write_text(text)
    sources.chmod(0o644)


def _remove_files(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            path.unlink()


def _parse(options: Mapping[str, object]) -> _Options:
    """Raise ValueError for what is not an option, or not a value of it."""
    unknown = sorted(set(options) - {"suite", "include", "variant", "components"})
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; it takes suite, include, variant and components")
    suite, variant = options.get("suite"), options.get("variant", "minbase")
    if not isinstance(suite, str) or not _WORD.fullmatch(suite):
        raise ValueError("'suite' must name a Debian release, such as bookworm")
    if variant not in _VARIANTS:
        raise ValueError(f"'variant' must be one of {', '.join(_VARIANTS)}")
    components = _words(options, "components", _WORD) or ("main",)
    include = _words(options, "include", _PACKAGE)
    return _Options(suite, include, cast("Literal['minbase']", variant), components)


def _words(options: Mapping[str, object], name: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    value = options.get(name, ())
    if not isinstance(value, list | tuple) or not all(
        isinstance(word, str) and pattern.fullmatch(word) for word in value
    ):
        raise ValueError(f"{name!r} must be a list of names")
    return tuple(cast("list[str]", value))
