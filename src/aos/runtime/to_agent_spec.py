"""From a package to an AgentSpec: the package alone, plus what whoever starts it asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument
from aos.runtime.choice import check_isolation
from aos.runtime.network.asked import NetworkWords, network_spec
from aos.runtime.spec import AgentSpec, Confinement, Limits, ProcessSpec, Rootfs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.package import Package
    from aos.runtime.spec import Mount

__all__ = ["LABEL_ISOLATION", "LABEL_NEEDS", "LABEL_RUNTIME", "Overrides", "to_agent_spec"]

LABEL_RUNTIME = "aos.openos.dev/runtime"
"""A label by which a package asks for a backend, or for `auto`."""
LABEL_ISOLATION = "aos.openos.dev/isolation"
"""… for the least isolation that it accepts."""
LABEL_NEEDS = "aos.openos.dev/needs"
"""… for capabilities of a backend, with commas between them: `checkpoint,restore`."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a person may change at start; None and empty: as the package has it."""

    args: tuple[str, ...] | None = None
    """Replaces the entrypoint's arguments (OCI's Cmd)."""
    entrypoint: tuple[str, ...] | None = None
    """Replaces the entrypoint's command, and with it the package's arguments, as for docker."""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    confinement: Confinement = field(default_factory=Confinement)
    read_only: bool = False
    disk: int | None = None
    """Bytes."""
    limits: Limits = field(default_factory=Limits)
    network: NetworkWords = field(default_factory=NetworkWords)
    runtime: str = ""
    hostname: str = ""
    user: str = ""
    work_dir: str = ""
    terminal: bool = False
    stdin: bool = False
    leave_stdin_open: bool = False


def to_agent_spec(package: Package, overrides: Overrides) -> AgentSpec:
    """InvalidArgument `spec-invalid` when there is nothing to run."""
    image, definition = package.image, package.definition or {}
    entrypoint = image.entrypoint if overrides.entrypoint is None else overrides.entrypoint
    arguments = image.cmd if overrides.entrypoint is None else ()
    args = (*entrypoint, *(arguments if overrides.args is None else overrides.args))
    if not args:
        raise InvalidArgument(
            f"package {package.name or package.manifest_digest} has no entrypoint",
            code="spec-invalid",
            hint="name a command after the reference, or give the Agentfile an entrypoint",
        )
    env = dict(text.partition("=")[::2] for text in image.env) | dict(overrides.env)
    resources = definition.get("resources") or {}
    return AgentSpec(
        process=ProcessSpec(
            args=args,
            env=tuple(env.items()),
            cwd=overrides.work_dir or image.working_dir or "/",
            user=overrides.user or image.user,
            terminal=overrides.terminal,
            stdin=overrides.stdin,
        ),
        rootfs=Rootfs(
            package.layers, read_only=overrides.read_only, size=overrides.disk or resources.get("disk")
        ),
        hostname=overrides.hostname or "agent",
        mounts=overrides.mounts,
        limits=_limits(resources, overrides.limits),
        confinement=replace(
            overrides.confinement, devices=(*(resources.get("gpu") or ()), *overrides.confinement.devices)
        ),
        network=network_spec(
            definition.get("network"), image.other_config.get("ExposedPorts") or (), overrides.network
        ),
        runtime=overrides.runtime or image.labels.get(LABEL_RUNTIME, ""),
        isolation=check_isolation(image.labels.get(LABEL_ISOLATION, "none"), f"label {LABEL_ISOLATION}"),
        needs=frozenset(filter(None, image.labels.get(LABEL_NEEDS, "").replace(" ", "").split(","))),
        leave_stdin_open=overrides.leave_stdin_open,
    )


def _limits(resources: Mapping[str, Any], asked: Limits) -> Limits:
    """What was asked for at start wins over what the package says."""
    return Limits(
        memory=resources.get("memory") if asked.memory is None else asked.memory,
        cpus=resources.get("cpu") if asked.cpus is None else asked.cpus,
        pids=resources.get("pids") if asked.pids is None else asked.pids,
    )
