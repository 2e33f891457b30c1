"""`plugin: {name: git, with: {url, ref?, dest, subdir?, submodules?, git?, depth?}}`: the tree of a commit.

What a branch or tag means is asked when the build is planned, and is an input: the step runs again when it has moved.
A commit's full hash asks nobody. The tree is as it is in the repository: no attribute, filter or setting of anybody
changes a byte. The host lends its way to the repository (git's own configuration, credential helpers, SSH, proxies);
nothing of it is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.build.plugins import PluginTask

__all__ = ["GitPlugin"]

_VERSION = 1
_NOTHING: Mapping[str, str] = MappingProxyType({})
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"[^-\s~^:?*\[\\\x00-\x1f\x7f][^\s~^:?*\[\\\x00-\x1f\x7f]*")
_URL = re.compile(r"[^-\s\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*")
_OPTIONS = ("url", "ref", "dest", "subdir", "submodules", "git", "depth")


@dataclass(frozen=True, slots=True)
class _Options:
    url: str
    ref: str
    dest: str
    subdir: str
    submodules: bool
    git: bool
    depth: int
    """Commits of history in `.git`; 0: all."""


class GitPlugin:
    looks_up = ("commit",)

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def inputs(
        self, options: Mapping[str, object], known: Mapping[str, str] = _NOTHING
    ) -> Mapping[str, object]:
        """Raise NotFound (`git-ref-not-found`), Unavailable (`git-remote-unavailable`), FailedPrecondition
        (`git-missing`, `git-transport-refused`)."""
        from aos.build.plugins.git_remote import git_version, resolve_ref

        asked = _parse(options)
        commit = asked.ref if _COMMIT.fullmatch(asked.ref) else known.get("commit", "")
        if not _COMMIT.fullmatch(commit):
            commit = resolve_ref(asked.url, asked.ref, self._environ)
        found: dict[str, object] = {
            "version": _VERSION,
            "commit": commit,
            "dest": asked.dest,
            "subdir": asked.subdir,
            "submodules": asked.submodules,
        }
        if asked.git:  # the packing of objects is git's
            found |= {"depth": asked.depth, "ref": asked.ref, "tools": {"git": git_version(self._environ)}}
        return found

    async def execute(self, task: PluginTask) -> None:
        """Raise NotFound (`git-commit-not-found`), InvalidArgument (`plugin-options`, `git-submodule-invalid`,
        `git-conflict`), and what `inputs` raises."""
        import asyncio

        from aos.build.plugins.git_remote import add_submodules, check_out, fetch, keep_history
        from aos.build.plugins.git_tree import move_into

        asked = _parse(task.options)
        commit = str(task.inputs["commit"])
        repository, tree = task.scratch / "repository", task.scratch / "tree"
        tree.mkdir()
        await fetch(task, asked.url, commit, repository, asked.depth if asked.git else 1)
        await check_out(task, repository, commit, asked.subdir, tree)
        if asked.submodules:
            await add_submodules(task, repository, commit, asked.url, asked.subdir, tree)
        if asked.git:
            await keep_history(task, repository, commit, asked.ref, tree)
        await asyncio.to_thread(move_into, tree, asked.dest, task.root, task.below)


def _parse(options: Mapping[str, object]) -> _Options:
    """Raise ValueError for what is not an option, or not a value of it."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; it takes {', '.join(_OPTIONS)}")
    url, ref, dest = _text(options, "url"), _text(options, "ref", "HEAD"), _text(options, "dest")
    if not _URL.fullmatch(url):
        raise ValueError("'url' must be the address of a repository")
    if re.match(r"[a-z+]+://[^/@]*:[^/@]*@", url):
        raise ValueError("'url' must not hold a password, for it is kept; git's credential helpers have it")
    if not _REF.fullmatch(ref) or ".." in ref:
        raise ValueError("'ref' must be a branch, a tag or the full hash of a commit")
    if not dest.startswith("/") or ".." in PurePosixPath(dest).parts:
        raise ValueError("'dest' must be an absolute path")
    parts = PurePosixPath(_text(options, "subdir", "")).parts
    if ".." in parts or "/" in parts:
        raise ValueError("'subdir' must be a path in the repository")
    depth = options.get("depth", 1)
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 0:
        raise ValueError("'depth' must be a number of commits, 0 for all")
    git, submodules = _flag(options, "git"), _flag(options, "submodules")
    if "depth" in options and not git:
        raise ValueError("'depth' is of the history, which only `git: true` keeps")
    if git and parts:
        raise ValueError("'subdir' has no history of its own; leave out `git`")
    return _Options(url, ref, dest, "/".join(parts), submodules, git, depth)


def _text(options: Mapping[str, object], name: str, default: str | None = None) -> str:
    value = options.get(name, default)
    if not isinstance(value, str) or (not value and default is None):
        raise ValueError(f"{name!r} must be a text" if name in options else f"{name!r} is needed")
    return value


def _flag(options: Mapping[str, object], name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} must be true or false")
    return value
