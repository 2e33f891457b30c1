"""Agentfiles: read, started, described."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.compose.packages import kept_packages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from aos.agentfile.extends import Package as PackageToExtend
    from aos.agentfile.resolve import Resolved
    from aos.config import Config


__all__ = ["agentfile", "agentfile_schema", "agentfile_start"]


def agentfile(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    build_args: Sequence[str] = (),
) -> Resolved:
    """Read the Agentfile of a context, or `file`, with all that it extends.

    `build_args` are the words of `--build-arg`: NAME=VALUE, or NAME for the value in the environment."""
    from aos.agentfile import build_arguments, load_resolved
    from aos.build import find_agentfile

    return load_resolved(
        file or find_agentfile(context),
        arguments=build_arguments(build_args, environ),
        parents=lambda reference: _package_to_extend(config, reference),
    )


def _package_to_extend(config: Config, reference: str) -> PackageToExtend:
    """A local package by its name and digest, or by its digest where that is how it was asked for."""
    from aos.agentfile.extends import Package

    with kept_packages(config, reference) as (_, registry, (package,)):
        digest = package.manifest_digest
        named = [
            entry for entry in registry.list() if entry.digest == digest and entry.reference == reference
        ]
        return Package(f"{named[0].reference}@{digest}" if named else str(digest), package.definition)


def agentfile_start(name: str) -> tuple[dict[str, str], str]:
    """The files of a new agent, and the reference that its build gets. Raises what is wrong with the name."""
    from aos.agentfile import AgentfileError, loads, starting_files
    from aos.errors import InvalidArgument

    files = starting_files(name)
    try:
        metadata = loads(files["Agentfile"].encode()).metadata
    except AgentfileError as error:
        raise InvalidArgument(
            f"{name!r:.60} cannot name a package", code="name-invalid", hint=error.problems[0].hint, name=name
        ) from error
    return files, f"{metadata.name}:{metadata.version}"


def agentfile_schema() -> dict[str, Any]:
    from aos.agentfile import json_schema

    return json_schema()
