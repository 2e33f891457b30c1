"""The Agentfile: what an author writes, read into a Definition or refused with every problem in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aos.agentfile.problems import AgentfileError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aos.agentfile.definition import Definition
    from aos.agentfile.extends import Parents
    from aos.agentfile.resolve import Resolved

__all__ = [
    "AgentfileError",
    "Problem",
    "build_arguments",
    "json_schema",
    "load",
    "load_resolved",
    "loads",
    "starting_files",
]


def load(
    path: Path, *, arguments: Mapping[str, str | None] | None = None, parents: Parents | None = None
) -> Definition:
    """Read a file. AgentfileError, NotFound `agentfile-missing`, InvalidArgument `agentfile-unreadable`.

    `arguments` are the values of build arguments (`build_arguments`), `parents` finds packages to extend."""
    return load_resolved(path, arguments=arguments, parents=parents).definition


def load_resolved(
    path: Path, *, arguments: Mapping[str, str | None] | None = None, parents: Parents | None = None
) -> Resolved:
    """`load`, and keep where each value came from."""
    from aos.agentfile.document import Document
    from aos.agentfile.resolve import resolve

    return resolve(lambda: Document.load(path), arguments or {}, parents)


def loads(
    data: bytes,
    file: str = "Agentfile",
    *,
    arguments: Mapping[str, str | None] | None = None,
    parents: Parents | None = None,
) -> Definition:
    """Read the content of a file; `file` is its name in messages, and what `extends` is relative to."""
    from aos.agentfile.document import Document
    from aos.agentfile.resolve import resolve

    return resolve(lambda: Document.read(file, data), arguments or {}, parents).definition


def build_arguments(words: Sequence[str], environ: Mapping[str, str]) -> dict[str, str | None]:
    """The values that `--build-arg NAME[=VALUE]` gives. Raise InvalidArgument (`build-arg-invalid`)."""
    if not words:
        return {}
    from aos.agentfile.arguments import build_arguments

    return build_arguments(words, environ)


def json_schema() -> dict[str, Any]:
    """The language as JSON Schema 2020-12."""
    from aos.agentfile.schema import SCHEMA

    return SCHEMA


def starting_files(name: str) -> dict[str, str]:
    """What `aos init` writes: file name -> content."""
    from aos.agentfile.start import starting_files

    return starting_files(name)
