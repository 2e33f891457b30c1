"""git, as the plugin `git` uses it: the host's way to a repository, and nobody's settings for what is in it.

A repository is hostile: it is fetched without hooks and templates, and checked out by git itself into an empty
directory, with every attribute that could change a byte switched off. Which transports may be used is what git
allows for addresses that no person typed (`GIT_PROTOCOL_FROM_USER=0`): https, http, ssh and git, but no files of the
host, unless `protocol.file.allow` says so; never `ext::`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from aos.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aos.build.plugins import PluginTask

__all__ = ["add_submodules", "check_out", "fetch", "git_version", "keep_history", "resolve_ref"]

_REMOTE_SECONDS = 30.0
_LOCAL_SECONDS = 300.0
_LENT = ("GIT_SSH", "GIT_SSL_", "GIT_CONFIG", "GIT_HTTP_", "GIT_PROXY_", "GIT_EXEC_PATH")
"""Of git's variables, those that lead to a repository; others (GIT_DIR, …) would lead elsewhere."""
_NEVER = ("-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
_STALLED = ("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60")
_EXACT = "* -text -eol -ident -filter -working-tree-encoding -export-subst -export-ignore\n"
"""gitattributes(5): `$GIT_DIR/info/attributes` has the last word."""
_DEEPEST, _MOST = 10, 1000
"""Submodules in submodules, and all together."""
_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n"


def resolve_ref(url: str, ref: str, environ: Mapping[str, str]) -> str:
    """Ask the repository which commit a branch or tag is. Raise NotFound (`git-ref-not-found`), Unavailable
    (`git-remote-unavailable`), FailedPrecondition (`git-missing`, `git-transport-refused`)."""
    places = (ref, f"refs/tags/{ref}", f"refs/heads/{ref}")  # gitrevisions(7): a tag goes first
    patterns = [*places, f"{places[0]}^{{}}", f"{places[1]}^{{}}"]
    words = (*_NEVER, *_STALLED, "ls-remote", "--quiet", "--", url, *patterns)
    code, out, said = _git(words, remote_environ(environ), _REMOTE_SECONDS)
    if code is None:
        raise _unavailable(url, f"no answer within {_REMOTE_SECONDS:g} s")
    if code != 0:
        if "not allowed" in said:
            raise _refused(url, said)
        raise _unavailable(url, said)
    found = {name: hash for hash, _, name in (line.partition("\t") for line in out.decode().splitlines())}
    for place in places:
        commit = found.get(f"{place}^{{}}") or found.get(place)
        if commit is not None and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            return commit
    raise NotFound(
        f"{url} has no branch or tag {ref!r}",
        code="git-ref-not-found",
        hint=f"see what it has: git ls-remote {url}",
        url=url,
        ref=ref,
    )


def git_version(environ: Mapping[str, str]) -> str:
    _, out, _ = _git(("version",), remote_environ(environ), _LOCAL_SECONDS)
    return out.decode(errors="replace").strip().removeprefix("git version ")


def remote_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What git needs to reach a repository as whoever builds would, but without asking questions."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("GIT_") or name.startswith(_LENT)
    }
    ssh = {} if kept.keys() & {"GIT_SSH", "GIT_SSH_COMMAND"} else {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
    return {**kept, **ssh, "GIT_TERMINAL_PROMPT": "0", "GIT_PROTOCOL_FROM_USER": "0", "LC_ALL": "C"}


async def fetch(task: PluginTask, url: str, commit: str, repository: Path, depth: int) -> None:
    """Make a bare repository that holds the commit, and `depth` of its history (0: all).

    Raise NotFound (`git-commit-not-found`), FailedPrecondition (`git-transport-refused`)."""
    environ = remote_environ(task.environ)
    form = ("--object-format=sha256",) if len(commit) == 64 else ()
    await task.run(("git", "init", "-q", "--bare", "--template=", *form, str(repository)), environ)
    git = (
        "git",
        *_NEVER,
        *_STALLED,
        "-C",
        str(repository),
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
    )
    shallow = (f"--depth={depth}",) if depth else ()
    try:
        await task.run((*git, *shallow, "--", url, commit), environ)
    except Aborted as error:
        if "not allowed" in error.message:
            raise _refused(url, "git refuses its transport") from error
        # Servers may give only what a name leads to, and old ones no shallow history.
        task.output(f"{url} does not give the commit alone; fetching all branches and tags")
        names = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        await task.run((*git, "--", url, *names), environ)
    try:
        await task.run(("git", "-C", str(repository), "cat-file", "-e", f"{commit}^{{commit}}"), environ)
    except Aborted as error:
        raise NotFound(
            f"{url} has no commit {commit} that a branch or tag leads to",
            code="git-commit-not-found",
            hint="see whether it was pushed, or removed by a forced push",
            url=url,
            commit=commit,
        ) from error


async def check_out(task: PluginTask, repository: Path, commit: str, subdir: str, tree: Path) -> None:
    """Write the files of a commit to `tree`, exactly as they are. Raise InvalidArgument (`plugin-options`)."""
    environ = _closed_environ(task, repository)
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info/attributes").write_text(_EXACT)
    git = [
        "git",
        *_NEVER,
        "-c",
        "core.autocrlf=false",
        "-c",
        "core.symlinks=true",
        "-c",
        "core.fileMode=true",
    ]
    git += ["--git-dir", str(repository), "--work-tree", str(tree)]
    try:
        await task.run((*git, "read-tree", f"{commit}:{subdir}" if subdir else commit), environ)
    except Aborted as error:
        if not subdir:
            raise
        raise InvalidArgument(
            f"plugin 'git': commit {commit} has no directory {subdir!r}",
            code="plugin-options",
            hint="correct `subdir`",
            subdir=subdir,
        ) from error
    await task.run((*git, "checkout-index", "--quiet", "--all", "--force"), environ)


async def add_submodules(
    task: PluginTask, repository: Path, commit: str, url: str, subdir: str, tree: Path, level: int = 0
) -> int:
    """Put the submodules' files where they belong; how many there were. Raise InvalidArgument
    (`git-submodule-invalid`), and what `fetch` raises."""
    links = await asyncio.to_thread(_links, task, repository)
    if not links:
        return 0
    urls = await asyncio.to_thread(_submodule_urls, task, repository, commit)
    count = 0
    for path, wanted in links:
        full = f"{subdir}/{path}" if subdir else path
        if full not in urls:
            raise _bad_submodule(full, "has no address in .gitmodules")
        if level >= _DEEPEST:
            raise _bad_submodule(full, f"is nested more than {_DEEPEST} levels deep")
        address = _relative_url(url, urls[full], full)
        await asyncio.to_thread(_make_place, tree, path)
        inner = repository.with_name(f"{repository.name}-{count}")
        await fetch(task, address, wanted, inner, 1)
        await check_out(task, inner, wanted, "", tree / path)
        count += 1 + await add_submodules(task, inner, wanted, address, "", tree / path, level + 1)
        if count > _MOST:
            raise _bad_submodule(full, f"is one of more than {_MOST}")
    return count


async def keep_history(task: PluginTask, repository: Path, commit: str, ref: str, tree: Path) -> None:
    """Make `.git`, the same for the same commits and the same version of git: a detached head, one pack, no index."""
    target = tree / ".git"
    for name in ("objects/pack", "refs/heads", "refs/tags"):
        (target / name).mkdir(parents=True)
    pack = 'git --git-dir "$2" pack-objects -q --revs --threads=1 --no-reuse-delta --no-reuse-object "$3"'
    script = f'printf "%s\\n" "$1" | {pack} > /dev/null'
    words = ("/bin/sh", "-c", script, "sh", commit, str(repository), str(target / "objects/pack/pack"))
    await task.run(words, _closed_environ(task, repository))
    (target / "config").write_text(_CONFIG if len(commit) == 40 else _sha256_config())
    (target / "HEAD").write_text(f"{commit}\n")
    shallow = repository / "shallow"
    if shallow.exists():
        (target / "shallow").write_text("".join(sorted(shallow.read_text().splitlines(keepends=True))))


def _sha256_config() -> str:
    return _CONFIG.replace("version = 0", "version = 1") + "[extensions]\n\tobjectformat = sha256\n"


def _closed_environ(task: PluginTask, repository: Path) -> dict[str, str]:
    """For what is local: the configuration of no user and no host."""
    return {
        "PATH": task.environ.get("PATH", os.defpath),
        "HOME": str(task.scratch),
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_INDEX_FILE": str(repository / "index-of-the-tree"),
    }


def _links(task: PluginTask, repository: Path) -> list[tuple[str, str]]:
    """The submodules of the tree that was checked out: path and commit."""
    words = ("--git-dir", str(repository), "ls-files", "--stage", "-z")
    _, out, _ = _git(words, _closed_environ(task, repository), _LOCAL_SECONDS)
    entries = (entry.partition("\t") for entry in os.fsdecode(out).split("\0"))
    return [(path, head.split()[1]) for head, _, path in entries if head.startswith("160000 ")]


def _make_place(tree: Path, path: str) -> None:
    """The directory of a submodule; a repository that has a link on the way to it means to lead somewhere else."""
    at = tree
    for part in PurePosixPath(path).parts:
        at /= part
        if part == ".." or at.is_symlink():
            raise _bad_submodule(path, "lies behind a link")
        at.mkdir(exist_ok=True)


def _submodule_urls(task: PluginTask, repository: Path, commit: str) -> dict[str, str]:
    """Addresses by path, as .gitmodules has them."""
    words = [*("--git-dir", str(repository), "config", "-z", "--blob", f"{commit}:.gitmodules")]
    words += ["--get-regexp", r"^submodule\..*\.(path|url)$"]
    _, out, _ = _git(words, _closed_environ(task, repository), _LOCAL_SECONDS)
    named: dict[str, dict[str, str]] = {}
    for entry in os.fsdecode(out).split("\0"):
        key, _, value = entry.partition("\n")
        if key:
            name, _, field = key.removeprefix("submodule.").rpartition(".")
            named.setdefault(name, {})[field] = value
    return {module["path"]: module["url"] for module in named.values() if {"path", "url"} <= module.keys()}


def _relative_url(parent: str, url: str, path: str) -> str:
    """gitmodules(5): an address that begins with ./ or ../ is relative to the repository's own."""
    if url.startswith("-") or re.search(r"[\s\x00-\x1f]", url):
        raise _bad_submodule(path, "has an address that is none")
    if not url.startswith(("./", "../")):
        return url
    head, separator, place = re.fullmatch(r"([a-z+]+://[^/]*|[^/:]*(?=:))?([/:]*)(.*)", parent).groups()  # type: ignore[union-attr]
    parts = [part for part in place.split("/") if part]
    for part in PurePosixPath(url).parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise _bad_submodule(path, f"leads out of {parent}")
    return f"{head or ''}{separator}{'/'.join(parts)}"


def _git(words: Sequence[str], environ: Mapping[str, str], seconds: float) -> tuple[int | None, bytes, str]:
    """Run git, blocking: exit code (None: it took too long), output, and the last line of what it said."""
    if shutil.which("git", path=environ.get("PATH")) is None:
        raise FailedPrecondition(
            "git is not installed, and `plugin: git` needs it",
            code="git-missing",
            hint="sudo apt-get install git",
        )
    with subprocess.Popen(
        ("git", *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        cwd="/",
        process_group=0,
    ) as process:
        try:
            out, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return None, b"", ""
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return (
        process.returncode,
        out,
        next((line for line in lines if line.startswith("fatal: ")), "; ".join(lines[-1:])),
    )


def _unavailable(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"{url} cannot be asked what its branches and tags are: {why.removeprefix('fatal: ')}",
        code="git-remote-unavailable",
        hint="see whether `git ls-remote` works; a `ref` that is a commit's full hash asks nobody",
        url=url,
    )


def _refused(url: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{url}: {why.removeprefix('fatal: ')}: an Agentfile may name https, http, ssh and git",
        code="git-transport-refused",
        hint="for repositories of this host: git config --global protocol.file.allow always",
        url=url,
    )


def _bad_submodule(path: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"plugin 'git': the submodule {path!r} {why}",
        code="git-submodule-invalid",
        hint="leave out `submodules`, or tell the repository's author",
        path=path,
    )
