"""A locked `install pip`: requirements become exact files, the files are kept, and nothing else is installed.

    resolve    uv in the target says which files the requirements mean there (pylock.toml, PEP 751)
    fetch      what is not kept is asked of the indexes again, by version and hash, and downloaded
    lay out    the kept files as a directory that uv installs from, and a list of them with their hashes

So a lock names no index and no address: any mirror that has the file will do, and none when it is kept.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from aos.agentfile.pins import PythonFile, normal_name
from aos.build.host.download import download
from aos.build.solve.threads import in_thread
from aos.build.steps.task import lock_file_gone
from aos.build.steps.uv import FILES, WORK
from aos.errors import Aborted, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aos.build.steps.uv import Uv

__all__ = ["install_files", "resolve"]

_PYLOCK = "pylock.toml"
_GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_")


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a pinned file can be had."""

    pin: PythonFile
    url: str


async def resolve(
    uv: Uv, requirements: Sequence[str], prefer: Iterable[str], *, network: bool
) -> tuple[str, ...]:
    """The pins of what `requirements` (arguments for uv) mean in the target; the files are kept afterwards.

    `prefer`: pins whose versions are taken where they fit. Raise Aborted (`step-failed`: uv says why),
    InvalidArgument (`lock-unsupported`)."""
    preferred = [PythonFile.parse(line) for line in prefer]
    sources = await _compile(uv, requirements, preferred, network=network)
    await _fetch(uv, sources)
    return tuple(source.pin.to_line() for source in sources)


async def install_files(uv: Uv, lines: Sequence[str], *, network: bool) -> list[str]:
    """See to it that the files of these pins are kept, and lay them out: the arguments for `uv pip install`.

    Raise NotFound (`lock-file-gone`), and what `download` raises."""
    pins = [PythonFile.parse(line) for line in lines]
    kept = uv.task.around.kept
    absent = set(await in_thread(lambda: kept.missing(pin.digest for pin in pins)))
    if absent:
        await _fetch(uv, await _find(uv, [pin for pin in pins if pin.digest in absent], network=network))
    kept.pin(lines)
    directory = uv.files / "files"
    directory.mkdir()
    for pin in pins:
        kept.lend(pin.digest, directory / pin.file)
    (uv.files / "locked.txt").write_text("".join(f"{_requirement(pin)}\n" for pin in pins))
    args = [
        "--no-deps",
        "--require-hashes",
        "--find-links",
        f"{FILES}/files",
        "--requirement",
        f"{FILES}/locked.txt",
    ]
    built = [pin for pin in pins if not pin.file.endswith(".whl")]  # their build may need an index
    return args if built else [*args, "--no-index"]


async def _compile(
    uv: Uv, requirements: Sequence[str], preferred: Iterable[PythonFile], *, network: bool
) -> list[_Source]:
    stubs = [f'[[packages]]\nname = "{pin.name}"\nversion = "{pin.version}"\n' for pin in preferred]
    result = uv.work / _PYLOCK
    result.unlink(missing_ok=True)
    if stubs:
        result.write_text('lock-version = "1.0"\ncreated-by = "aos"\n' + "".join(stubs))
    args = ("pip", "compile", *requirements, "--format", _PYLOCK, "--quiet", "--no-header")
    await uv.run(*args, "--output-file", f"{WORK}/{_PYLOCK}", network=network)
    packages: list[dict[str, Any]] = tomllib.loads(result.read_text()).get("packages", [])
    return [_source(uv, package) for package in packages]


async def _find(uv: Uv, pins: Sequence[PythonFile], *, network: bool) -> list[_Source]:
    """Ask the indexes where these files are."""
    vertex = uv.task.vertex
    if not network:
        names = ", ".join(pin.file for pin in pins)
        raise lock_file_gone(vertex, f"the step has no network: {names}", pins[0].name)
    wanted = uv.work / "wanted.txt"
    wanted.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
    args = ("pip", "compile", "--no-deps", f"{WORK}/wanted.txt", "--format", _PYLOCK, "--quiet")
    (uv.work / _PYLOCK).unlink(missing_ok=True)
    try:
        await uv.run(*args, "--output-file", f"{WORK}/{_PYLOCK}", network=True)
    except Aborted as error:
        raise lock_file_gone(vertex, error.message, pins[0].name) from error
    urls: dict[str, str] = {}
    for package in tomllib.loads((uv.work / _PYLOCK).read_text()).get("packages", ()):
        for entry in _entries(package):
            urls[f"sha256:{entry['hashes'].get('sha256')}"] = _url(uv, entry)
    gone = [pin for pin in pins if pin.digest not in urls]
    if gone:
        said = "\n".join(f"    {pin.to_line()}" for pin in gone)
        raise lock_file_gone(vertex, f"no index has it with this hash:\n{said}", gone[0].name)
    return [_Source(pin, urls[pin.digest]) for pin in pins]


async def _fetch(uv: Uv, sources: Sequence[_Source]) -> None:
    kept, directory = uv.task.around.kept, uv.task.around.workspace.fresh("downloads")
    absent = set(await in_thread(lambda: kept.missing(source.pin.digest for source in sources)))
    wanted = [source for source in sources if source.pin.digest in absent]
    if not wanted:
        return
    uv.task.output(f"fetching {len(wanted)} files to keep")
    await in_thread(lambda: download([(one.url, directory / one.pin.file) for one in wanted], uv.settings))
    for one in wanted:
        await in_thread(lambda one=one: kept.keep(directory / one.pin.file, one.pin.digest))  # type: ignore[misc]
        (directory / one.pin.file).unlink()


def _source(uv: Uv, package: Mapping[str, Any]) -> _Source:
    """The one file of a package that the target would take: its best wheel, else its source archive."""
    name, version = normal_name(str(package["name"])), str(package.get("version", ""))
    kinds = [kind for kind in ("vcs", "directory") if kind in package]
    if kinds:
        raise InvalidArgument(
            f"step {uv.task.vertex.label}: {name} comes from {'a version control system' if 'vcs' in kinds else 'a directory'}"
            ", which has no file that a lock could name",
            code="lock-unsupported",
            hint="name a release of it, or the address of an archive",
            package=name,
        )
    wheels = sorted(package.get("wheels", ()), key=lambda entry: _rank(_file(entry)))
    entry = wheels[-1] if wheels else package.get("sdist") or package["archive"]
    file = _file(entry)
    pin = PythonFile(name, version or _version_of(file), file, f"sha256:{entry['hashes']['sha256']}")
    return _Source(PythonFile.parse(pin.to_line()), _url(uv, entry))


def _entries(package: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    one = [package[name] for name in ("sdist", "archive") if name in package]
    return [entry for entry in (*package.get("wheels", ()), *one) if "hashes" in entry]


def _file(entry: Mapping[str, Any]) -> str:
    if "name" in entry:
        return str(entry["name"])
    return unquote(urlsplit(str(entry.get("url") or entry.get("path"))).path).rpartition("/")[2]


def _url(uv: Uv, entry: Mapping[str, Any]) -> str:
    """An address, or a path of the host for what the sandbox sees of the host's directories."""
    text = str(entry.get("url") or entry.get("path"))
    path = unquote(urlsplit(text).path) if text.startswith("file:") else text
    if "://" in path:
        return text
    absolute = path if path.startswith("/") else _absolute(f"{WORK}/{path}")
    for mount in uv.mounts:
        if mount.source is not None and absolute.startswith(mount.target + "/"):
            return str(mount.source) + absolute.removeprefix(mount.target)
    raise FailedPrecondition(
        f"step {uv.task.vertex.label}: {text} lies inside the image, where a lock cannot take it from",
        code="lock-unsupported",
        hint="put it into a find-links directory of the host",
    )


def _absolute(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _rank(file: str) -> tuple[int, int, int]:
    """How specific a wheel is to the target, which all of these fit: by its tags (PEP 425, PEP 600)."""
    *_, python, abi, platform = file.removesuffix(".whl").split("-")
    level = 2 if abi == "abi3" else 3 if abi not in ("none", "") else 0 if platform == "any" else 1
    newest = max((int(digits) for digits in re.findall(r"\d+", python)), default=0)
    glibc = max((int(major) * 100 + int(minor) for major, minor in _GLIBC.findall(platform)), default=0)
    return level, newest, glibc


def _version_of(file: str) -> str:
    return file.split("-")[1] if file.endswith(".whl") else file.rpartition("-")[2].partition(".tar")[0]


def _requirement(pin: PythonFile) -> str:
    return f"{pin.name}=={pin.version} --hash={pin.digest}"
