"""The Agentfile: what an author writes, read into a Definition or refused with every problem in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aos.agentfile.problems import AgentfileError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from aos.agentfile.definition import Definition

__all__ = ["AgentfileError", "Problem", "json_schema", "load", "loads", "starting_files"]


def load(path: Path) -> Definition:
    """Read a file. AgentfileError, NotFound `agentfile-missing`, InvalidArgument `agentfile-unreadable`."""
    from aos.agentfile.document import Document
    from aos.agentfile.read import read_definition
    from aos.agentfile.walk import Walk

    return read_definition(Walk(), Document.load(path).root)


def loads(data: bytes, file: str = "Agentfile") -> Definition:
    """Read the content of a file; `file` is its name in messages."""
    from aos.agentfile.document import Document
    from aos.agentfile.read import read_definition
    from aos.agentfile.walk import Walk

    return read_definition(Walk(), Document.read(file, data).root)


def json_schema() -> dict[str, Any]:
    """The language as JSON Schema 2020-12."""
    from aos.agentfile.schema import SCHEMA

    return SCHEMA


def starting_files(name: str) -> dict[str, str]:
    """What `aos init` writes: file name -> content."""
    from aos.agentfile.start import starting_files

    return starting_files(name)
