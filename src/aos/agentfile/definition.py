"""The definition: a validated Agentfile as plain values.

`to_json` is canonical (sorted keys, defaults left out): it is what a package carries in its
`aos.openos.dev/definition` label, and what cache keys and the plan are computed from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Copy",
    "Definition",
    "Entrypoint",
    "ImageConfig",
    "Install",
    "Metadata",
    "Plugin",
    "Resources",
    "RestartPolicy",
    "Run",
    "Stage",
    "Step",
]

RestartPolicy = Literal["never", "on-failure"]


@dataclass(frozen=True, slots=True)
class Metadata:
    name: str
    """The grammar of an OCI repository path component: lower case, digits, separators."""
    version: str
    """Semantic version 2.0.0."""
    description: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ImageConfig:
    env: tuple[tuple[str, str], ...] = ()
    work_dir: str = ""
    user: str = ""
    image: tuple[tuple[str, str], ...] = ()
    """Further fields of the OCI image config that pass through (`StopSignal`, `ExposedPorts` later)."""


@dataclass(frozen=True, slots=True)
class Copy:
    """`copy: {from?, src, dest, owner?, mode?}`. `src` is one path or several, relative to the context (or
    absolute in the stage named by `from`), globs allowed; `dest` ending in '/' is a directory."""

    src: tuple[str, ...]
    dest: str
    from_stage: str = ""
    owner: tuple[int, int] = (0, 0)
    mode: int | None = None
    kind: Literal["copy"] = "copy"


@dataclass(frozen=True, slots=True)
class Install:
    """`install: {pip: [names] | {packages?, requirements?}, network?}` or `install: {apt: [names]}`."""

    tool: Literal["pip", "apt"]
    packages: tuple[str, ...] = ()
    requirements: str = ""
    """pip: a requirements file of the context."""
    network: bool = True
    kind: Literal["install"] = "install"


@dataclass(frozen=True, slots=True)
class Run:
    """`run: "shell command"`, `run: [exec, form]` or `run: {command, env?, user?, workDir?, network?}`."""

    args: tuple[str, ...]
    """Shell form is already wrapped: ("/bin/sh", "-c", text)."""
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    work_dir: str = ""
    network: bool = False
    kind: Literal["run"] = "run"


@dataclass(frozen=True, slots=True)
class Plugin:
    """`plugin: {name, with?}`."""

    name: str
    options: tuple[tuple[str, object], ...] = ()
    """JSON-representable, sorted by key."""
    kind: Literal["plugin"] = "plugin"


Step = Copy | Install | Run | Plugin


@dataclass(frozen=True, slots=True)
class Stage:
    """`base`: `scratch`, the name of another stage, a reference, or `oci:<directory>[:<tag>]`."""

    name: str
    base: str
    depends_on: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    location: str = ""
    """`file:line:column`, for messages; not part of identity."""


@dataclass(frozen=True, slots=True)
class Entrypoint:
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    cpu: float | None = None
    """CPUs."""
    memory: int | None = None
    """Bytes."""
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    metadata: Metadata
    stages: tuple[Stage, ...]
    """In dependency order. The top-level `from` and `steps` are the last stage, named ''; when the Agentfile
    has only `stages`, the last of them is the package."""
    config: ImageConfig = ImageConfig()
    entrypoint: Entrypoint = Entrypoint()
    resources: Resources = Resources()
    network: Literal["none", "host"] = "none"
    restart: RestartPolicy = "never"

    @property
    def final(self) -> Stage:
        return self.stages[-1]

    def to_json(self) -> dict[str, object]:
        """The canonical form; `from_json(to_json())` gives the same definition."""
        raise NotImplementedError  # filled with the room

    @classmethod
    def from_json(cls, raw: dict[str, object]) -> Definition:
        raise NotImplementedError  # filled with the room
