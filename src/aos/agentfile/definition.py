"""The definition: a validated Agentfile as plain values.

`to_json` is canonical (sorted keys, defaults left out): it is what a package carries in its
`aos.openos.dev/definition` label, and what cache keys and the plan are computed from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, cast

from aos.errors import InvalidArgument

__all__ = [
    "HOOK_EVENTS",
    "Bandwidth",
    "BindMount",
    "CacheMount",
    "Copy",
    "Definition",
    "Entrypoint",
    "Hook",
    "Hooks",
    "HttpProbe",
    "ImageConfig",
    "Install",
    "Metadata",
    "Network",
    "NetworkMode",
    "Plugin",
    "Probe",
    "Resources",
    "RestartLimit",
    "Run",
    "SecretMount",
    "Stage",
    "Step",
]

_T = TypeVar("_T")


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
    absolute in what `from` names), globs allowed; `dest` ending in '/' is a directory."""

    src: tuple[str, ...]
    dest: str
    from_stage: str = ""
    """A stage, or what a stage's `base` can be; empty: the context."""
    owner: tuple[int | str, int | str] = (0, 0)
    """User and group, each a number or a name of the image that is copied into; group "": the user's own."""
    mode: int | None = None
    kind: Literal["copy"] = "copy"


@dataclass(frozen=True, slots=True)
class Install:
    """`install: {pip: [names] | {packages?, requirements?, project?}, network?}` or `install: {apt: [names]}`."""

    tool: Literal["pip", "apt"]
    packages: tuple[str, ...] = ()
    requirements: str = ""
    """pip: a requirements file of the context."""
    project: str = ""
    """pip: a directory of the context with `pyproject.toml` and `uv.lock`, whose dependencies are installed."""
    network: bool = True
    kind: Literal["install"] = "install"


@dataclass(frozen=True, slots=True)
class CacheMount:
    """`cache: [{target, id?, sharing?}]`: a directory that outlives builds and is in no layer."""

    target: str
    """Absolute path in the sandbox."""
    id: str
    """Steps that name the same share it; the target where the Agentfile says nothing."""
    sharing: Literal["shared", "private", "locked"] = "shared"
    """As in BuildKit: all at once; one each; one after the other."""


@dataclass(frozen=True, slots=True)
class SecretMount:
    """`secrets: [{id, target?, env?, required?, mode?}]`: what `--secret id=…` gives, for this step alone."""

    id: str
    target: str = ""
    """Absolute path of a file; `/run/secrets/<id>` unless only `env` is named."""
    env: str = ""
    """A variable of the step's process."""
    required: bool = True
    mode: int = 0o400


@dataclass(frozen=True, slots=True)
class BindMount:
    """`mounts: [{target, from?, source?}]`: files of a stage, an image or the context, read-only."""

    target: str
    from_stage: str = ""
    """As `Copy.from_stage`."""
    source: str = "/"
    """A path in it."""


@dataclass(frozen=True, slots=True)
class Run:
    """`run: "shell command"`, `run: [exec, form]`, or
    `run: {command, env?, user?, workDir?, network?, cache?, secrets?, mounts?, ssh?}`."""

    args: tuple[str, ...]
    """Shell form is already wrapped: ("/bin/sh", "-c", text)."""
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    work_dir: str = ""
    network: Literal["none", "host", "bridge"] = "none"
    caches: tuple[CacheMount, ...] = ()
    secrets: tuple[SecretMount, ...] = ()
    mounts: tuple[BindMount, ...] = ()
    ssh: tuple[str, ...] = ()
    """Ids of agents to forward (`--ssh default`)."""
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
    """`file:line:column`, for messages; this and what follows is not part of identity."""
    step_locations: tuple[str, ...] = ()
    """Of each step, in their order; they can be in several files."""
    arguments: tuple[tuple[tuple[str, str], ...], ...] = ()
    """For each step, the build arguments that its texts hold: names and values, sorted."""
    base_arguments: tuple[tuple[str, str], ...] = ()
    """Those of `from`."""

    def location_of(self, position: int) -> str:
        """Where a step stands; the stage, when that is all that is known."""
        return self.step_locations[position] if self.step_locations else self.location


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
    disk: int | None = None
    """Bytes that it writes to its own root."""
    gpu: tuple[str, ...] = ()
    """Names of CDI devices (`vendor.com/class=name`), or how many of any class `gpu`, as text."""


@dataclass(frozen=True, slots=True)
class Secret:
    """`secrets: [{name, target?, env?, required?}]`: what `aos run --secret NAME=…` gives."""

    name: str
    target: str = ""
    """Absolute path of a file; empty: /run/secrets/<name>, unless there is `env`."""
    env: bool = False
    """Whether it is a variable of that name (too, with a target)."""
    required: bool = True


@dataclass(frozen=True, slots=True)
class RestartLimit:
    """`restart: {policy, limit: {restarts, within}}`: more restarts within so many seconds, and the agent gives up."""

    restarts: int
    within: float


@dataclass(frozen=True, slots=True)
class HttpProbe:
    port: int
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Probe:
    """`health` and `readiness`; exactly one of `exec`, `http` and `tcp`. Times are seconds."""

    exec: tuple[str, ...] = ()
    http: HttpProbe | None = None
    tcp: int = 0
    """A port."""
    interval: float = 10.0
    timeout: float = 5.0
    retries: int = 3
    """Failures in a row."""
    start_period: float = 0.0
    """Failures in this time do not count."""
    on_failure: str = "restart"
    """Of `health`: `restart` or `none`."""


@dataclass(frozen=True, slots=True)
class Hook:
    exec: tuple[str, ...]
    where: str = "sandbox"
    """`sandbox` or `host`."""
    user: str = ""
    timeout: float = 30.0
    """Seconds."""
    on_failure: str = "fail"
    """`fail` or `ignore`."""


@dataclass(frozen=True, slots=True)
class Hooks:
    pre_create: tuple[Hook, ...] = ()
    post_create: tuple[Hook, ...] = ()
    pre_start: tuple[Hook, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    post_stop: tuple[Hook, ...] = ()
    pre_delete: tuple[Hook, ...] = ()
    post_delete: tuple[Hook, ...] = ()


HOOK_EVENTS = tuple(field.name for field in fields(Hooks))


NetworkMode = Literal["none", "bridge", "host"]


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bits per second, such as `10M`; empty: no limit."""

    up: str = ""
    down: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """`network: {mode, egress?, ports?, bandwidth?}`; the words are those of aos.runtime.network.rules."""

    mode: NetworkMode
    egress: tuple[str, ...] | None = None
    """`internet`, `none`, or rules; None: `internet`."""
    ports: tuple[str, ...] = ()
    """What it listens on: `8080`, `53/udp`."""
    bandwidth: Bandwidth = Bandwidth()


@dataclass(frozen=True, slots=True)
class Definition:
    metadata: Metadata
    stages: tuple[Stage, ...]
    """In dependency order. The top-level `from` and `steps` are the last stage, named ''; when the Agentfile
    has only `stages`, the last of them is the package."""
    config: ImageConfig = ImageConfig()
    entrypoint: Entrypoint = Entrypoint()
    resources: Resources = Resources()
    network: NetworkMode | Network = "none"
    restart: str = "never"
    """`never`, `on-failure`, `on-failure:N`, `always` or `unless-stopped`."""
    restart_limit: RestartLimit | None = None
    stop_grace: float | None = None
    """Seconds between the stop signal and the end; None: as whoever runs it has it."""
    health: Probe | None = None
    readiness: Probe | None = None
    hooks: Hooks = Hooks()
    secrets: tuple[Secret, ...] = ()

    @property
    def final(self) -> Stage:
        return self.stages[-1]

    def to_json(self) -> dict[str, Any]:
        """The canonical form; `from_json(to_json())` gives the same definition, but for what is not part of identity."""
        return _to_json(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Definition:
        """What `to_json` wrote; raise InvalidArgument (`definition-invalid`) for anything else."""
        try:
            return cls(
                metadata=_build(Metadata, raw["metadata"]),
                stages=tuple(
                    _build(Stage, {**stage, "steps": [_step(step) for step in stage.get("steps", ())]})
                    for stage in raw["stages"]
                ),
                config=_build(ImageConfig, raw.get("config", {})),
                entrypoint=_build(Entrypoint, raw.get("entrypoint", {})),
                resources=_build(Resources, raw.get("resources", {})),
                network=_network(raw.get("network", "none")),
                restart=raw.get("restart", "never"),
                restart_limit=_build(RestartLimit, raw["restart_limit"]) if "restart_limit" in raw else None,
                stop_grace=raw.get("stop_grace"),
                health=_probe(raw.get("health")),
                readiness=_probe(raw.get("readiness")),
                hooks=_hooks(raw.get("hooks", {})),
                secrets=tuple(_build(Secret, one) for one in raw.get("secrets", ())),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidArgument(f"not a definition: {error!r}", code="definition-invalid") from error


def _network(raw: Any) -> NetworkMode | Network:
    if isinstance(raw, str):
        return cast("NetworkMode", raw)
    return _build(Network, {**raw, "bandwidth": _build(Bandwidth, raw.get("bandwidth", {}))})


_KINDS: dict[str, type[Step]] = {"copy": Copy, "install": Install, "run": Run, "plugin": Plugin}
_PARTS: dict[str, type[CacheMount | SecretMount | BindMount]] = {
    "caches": CacheMount,
    "secrets": SecretMount,
    "mounts": BindMount,
}
"""Fields of a step that are lists of values of ours."""
_NOTES = frozenset({"location", "step_locations", "arguments", "base_arguments"})
"""Fields of a stage that are not part of identity."""
_MAPS = frozenset({"labels", "env", "image", "options"})
"""Fields that are pairs here and objects in JSON, in the same order: an environment's is its own. (A secret's
`env` is one variable's name, and stays it.)"""


def _to_json(value: Any) -> dict[str, Any]:
    """Fields that differ from their default, `kind` always; notes never."""
    out: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if field.name in _NOTES or (item == field.default and field.name != "kind"):
            continue
        if is_dataclass(item):
            nested = _to_json(item)
            if nested:
                out[field.name] = nested
        elif field.name in _MAPS and isinstance(item, tuple):
            out[field.name] = dict(item)
        elif isinstance(item, tuple):
            out[field.name] = [_to_json(one) if is_dataclass(one) else one for one in item]
        else:
            out[field.name] = item
    return out


def _build(cls: type[_T], raw: dict[str, Any]) -> _T:
    def value(name: str, item: Any) -> Any:
        if name in _MAPS and isinstance(item, dict):
            return tuple(item.items())
        return tuple(item) if isinstance(item, list) else item

    return cls(**{name: value(name, item) for name, item in raw.items()})


def _step(raw: dict[str, Any]) -> Step:
    parts = {
        name: tuple(_build(cls, one) for one in raw[name]) for name, cls in _PARTS.items() if name in raw
    }
    return _build(_KINDS[raw["kind"]], {**raw, **parts})


def _probe(raw: dict[str, Any] | None) -> Probe | None:
    if raw is None:
        return None
    return _build(Probe, {**raw, **({"http": _build(HttpProbe, raw["http"])} if "http" in raw else {})})


def _hooks(raw: dict[str, Any]) -> Hooks:
    return Hooks(**{event: tuple(_build(Hook, one) for one in hooks) for event, hooks in raw.items()})
