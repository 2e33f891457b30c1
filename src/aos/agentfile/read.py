"""From a document to a Definition: every field of the language, section by section."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aos.agentfile.definition import (
    Definition,
    Entrypoint,
    ImageConfig,
    Metadata,
    Resources,
    Stage,
)
from aos.agentfile.mounts import read_secrets
from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode, arguments_in, scalar_kind
from aos.agentfile.quantities import parse_cpu, parse_memory
from aos.agentfile.stages import Declared, arrange
from aos.agentfile.steps import read_step

if TYPE_CHECKING:
    from aos.agentfile.definition import Network, NetworkMode
    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Fields, Walk

__all__ = ["FIELDS", "read_definition", "read_head"]

API_VERSION, KIND = "aos.io/v1", "AgentPackage"
FIELDS = (
    *(
        "apiVersion",
        "kind",
        "metadata",
        "extends",
        "args",
        "from",
        "config",
        "steps",
        "stages",
        "dependencies",
    ),
    *("resources", "entrypoint", "restart", "stopGracePeriod", "health", "readiness", "hooks"),
    *("network", "secrets", "memory", "ipc"),
)
_LATER = ("dependencies", "memory", "ipc")
_LIFECYCLE = frozenset({"restart", "stopGracePeriod", "health", "readiness", "hooks"})
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_STAGE = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
# https://semver.org/spec/v2.0.0.html
_PRE = r"(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-{_PRE}(\.{_PRE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)
_CDI = re.compile(r"[A-Za-z0-9.-]+/[A-Za-z][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_OURS = "aos.openos.dev/"
_LABELS_TO_ASK = ("runtime", "isolation", "needs")
"""Of ours, what an author may set: what the package asks of a runtime."""


def read_head(walk: Walk, root: Node, required: tuple[str, ...] = ("apiVersion", "kind")) -> Fields:
    """The fields of a file, and whether it is an Agentfile at all."""
    fields = walk.mapping(root, "an Agentfile", FIELDS, required) or {}
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if name in fields:
            text = walk.string(fields[name], name)
            if text is not None and text != expected:
                walk.note(fields[name], f"{name} must be {expected}, not {text!r:.60}")
    return fields


def read_definition(walk: Walk, root: Node) -> Definition:
    """Raise AgentfileError with every problem there is, and those that `walk` has noted before."""
    fields = read_head(walk, root, ("apiVersion", "kind", "metadata"))
    if not isinstance(root, MappingNode):
        walk.finish()
    for name in _LATER:
        if name in fields and not _is_empty(fields[name]):
            walk.later(fields[name], name)
    metadata = _metadata(walk, fields["metadata"]) if "metadata" in fields else None
    config = _config(walk, fields["config"]) if "config" in fields else ImageConfig()
    entrypoint = _entrypoint(walk, fields["entrypoint"]) if "entrypoint" in fields else Entrypoint()
    resources = _resources(walk, fields["resources"]) if "resources" in fields else Resources()
    network: NetworkMode | Network = "none"
    if "network" in fields:
        from aos.agentfile.network import read_network

        network = read_network(walk, fields["network"])
    lifecycle = _lifecycle(walk, fields) if _LIFECYCLE & fields.keys() else {}
    secrets = read_secrets(walk, fields["secrets"]) if "secrets" in fields else ()
    stages = arrange(walk, _stages(walk, fields, root))
    walk.finish()
    assert metadata is not None
    return Definition(
        metadata,
        stages,
        config,
        entrypoint,
        resources,
        network,
        secrets=secrets,
        **lifecycle,
    )


def _lifecycle(walk: Walk, fields: Fields) -> dict[str, Any]:
    from aos.agentfile import lifecycle

    found: dict[str, Any] = {}
    if "restart" in fields:
        found["restart"], found["restart_limit"] = lifecycle.read_restart(walk, fields["restart"])
    if "stopGracePeriod" in fields:
        found["stop_grace"] = lifecycle.read_grace(walk, fields["stopGracePeriod"])
    for name in ("health", "readiness"):
        if name in fields:
            found[name] = lifecycle.read_probe(walk, fields[name], name)
    if "hooks" in fields:
        found["hooks"] = lifecycle.read_hooks(walk, fields["hooks"])
    return found


def belongs_to_aos(label: str) -> bool:
    """Whether a package's author may not set it."""
    return label.startswith(_LABEL_OURS) and label.removeprefix(_LABEL_OURS) not in _LABELS_TO_ASK


def _metadata(walk: Walk, node: Node) -> Metadata | None:
    fields = walk.mapping(node, "metadata", ("name", "version", "description", "labels"), ("name", "version"))
    if fields is None or "name" not in fields or "version" not in fields:
        return None
    name = walk.string(fields["name"], "metadata.name", empty=False)
    if name is not None and (not _NAME.fullmatch(name) or len(name) > 128):
        hint = "lower-case letters and digits, separated by '.', '_' or '-'; at most 128"
        walk.note(fields["name"], f"{name!r:.60} cannot name a package", hint=hint)
    example = "three numbers, such as 1.10.0"
    version = walk.string(fields["version"], "metadata.version", empty=False, hint=example)
    if version is not None and not _VERSION.fullmatch(version):
        walk.note(
            fields["version"],
            f"{version!r:.60} is not a semantic version",
            hint="three numbers, such as 1.10.0, with an optional -prerelease and +build (semver.org)",
        )
    description = (
        walk.string(fields["description"], "metadata.description") if "description" in fields else ""
    )
    labels = walk.string_map(fields["labels"], "metadata.labels") if "labels" in fields else ()
    for key, _ in labels:
        if belongs_to_aos(key):
            walk.note(fields["labels"], f"the label {key!r:.80} belongs to aos", hint="choose another name")
    return Metadata(name or "", version or "", description or "", tuple(sorted(labels)))


def _config(walk: Walk, node: Node) -> ImageConfig:
    fields = walk.mapping(node, "config", ("env", "workDir", "image", "user")) or {}
    env = walk.string_map(fields["env"], "config.env") if "env" in fields else ()
    for key, _ in env:
        if not _VARIABLE.fullmatch(key):
            walk.note(fields["env"], f"{key!r:.60} cannot name a variable", hint="letters, digits and '_'")
    work_dir = walk.string(fields["workDir"], "config.workDir", empty=False) if "workDir" in fields else ""
    if work_dir and not work_dir.startswith("/"):
        walk.note(fields["workDir"], "config.workDir must be absolute", hint=f"such as /{work_dir}")
    user = walk.string(fields["user"], "config.user", empty=False) if "user" in fields else ""
    image: tuple[tuple[str, str], ...] = ()
    if "image" in fields:
        inner = walk.mapping(fields["image"], "config.image", ("StopSignal",)) or {}
        if "StopSignal" in inner and (signal := walk.string(inner["StopSignal"], "config.image.StopSignal")):
            if not re.fullmatch(r"SIG[A-Z0-9+-]+|[0-9]{1,2}", signal):
                walk.note(inner["StopSignal"], f"{signal!r:.40} is not a signal", hint="such as SIGTERM")
            image = (("StopSignal", signal),)
    return ImageConfig(env, work_dir or "", user or "", image)


def _entrypoint(walk: Walk, node: Node) -> Entrypoint:
    if isinstance(node, SequenceNode):
        walk.note(node, "entrypoint must be a mapping", hint="entrypoint: {command: [...], args: [...]}")
        return Entrypoint()
    fields = walk.mapping(node, "entrypoint", ("command", "args")) or {}
    found = {}
    for name in ("command", "args"):
        if name not in fields:
            continue
        if isinstance(fields[name], ScalarNode):
            walk.note(
                fields[name],
                f"entrypoint.{name} must be a list: nothing splits it at spaces",
                hint='such as [python3, main.py], or ["/bin/sh", "-c", "…"] for a shell',
            )
            continue
        found[name] = walk.strings(fields[name], f"entrypoint.{name}", blank=name == "args")
    return Entrypoint(found.get("command", ()), found.get("args", ()))


def _resources(walk: Walk, node: Node) -> Resources:
    fields = walk.mapping(node, "resources", ("cpu", "memory", "gpu", "pids", "disk")) or {}
    return Resources(
        cpu=walk.amount(fields["cpu"], "resources.cpu", parse_cpu) if "cpu" in fields else None,
        memory=walk.amount(fields["memory"], "resources.memory", parse_memory)
        if "memory" in fields
        else None,
        pids=walk.integer(fields["pids"], "resources.pids", least=1) if "pids" in fields else None,
        disk=walk.amount(fields["disk"], "resources.disk", parse_memory) if "disk" in fields else None,
        gpu=_gpu(walk, fields["gpu"]) if "gpu" in fields else (),
    )


def _stages(walk: Walk, fields: Fields, root: Node) -> list[Declared]:
    declared: list[Declared] = []
    for node in walk.items(fields["stages"], "stages") if "stages" in fields else ():
        inner = walk.mapping(node, "a stage", ("name", "from", "dependsOn", "steps"), ("name", "from"))
        if inner is None or "name" not in inner or "from" not in inner:
            continue
        name = walk.string(inner["name"], "the stage's name", empty=False)
        if name is not None and (not _STAGE.fullmatch(name) or name == "scratch"):
            walk.note(inner["name"], f"{name!r:.60} cannot name a stage", hint="a letter, then a-z 0-9 _ . -")
        declared.append(_stage(walk, node, name or "", inner))
    if "from" in fields or "steps" in fields:
        if "from" not in fields:
            walk.note(
                fields["steps"], "steps need a 'from' beside them", code="missing-field", hint="from: scratch"
            )
        declared.append(_stage(walk, fields.get("from", root), "", fields))
    if not declared and not walk.problems:
        walk.note(
            root,
            "there is nothing to build",
            code="missing-field",
            hint="give it 'from' and 'steps', or 'stages'",
        )
    return declared


def _stage(walk: Walk, node: Node, name: str, fields: Fields) -> Declared:
    base = walk.string(fields["from"], "from", empty=False) if "from" in fields else None
    depends = walk.strings(fields["dependsOn"], "dependsOn") if "dependsOn" in fields else ()
    nodes = walk.items(fields["steps"], "steps") if "steps" in fields else []
    steps = [(item, read_step(walk, item)) for item in nodes]
    read = [(item, step) for item, step in steps if step]
    stage = Stage(
        name,
        base or "",
        depends,
        tuple(step for _, step in read),
        node.document.place(node),
        tuple(item.document.place(item) for item, _ in read),
        tuple(arguments_in(item) for item, _ in read),
        arguments_in(fields["from"]) if "from" in fields else (),
    )
    return Declared(stage, node, fields, read)


def _is_empty(node: Node) -> bool:
    return not isinstance(node, ScalarNode) and not node.value


def _gpu(walk: Walk, node: Node) -> tuple[str, ...]:
    """How many, or which devices of the host (CDI)."""
    if isinstance(node, ScalarNode) and scalar_kind(node) == "integer":
        count = walk.integer(node, "resources.gpu", least=1)
        return (str(count),) if count else ()
    names = []
    for item in [node] if isinstance(node, ScalarNode) else walk.items(node, "resources.gpu"):
        text = walk.string(item, "an item of resources.gpu", empty=False)
        if text is not None and not _CDI.fullmatch(text):
            walk.note(
                item, f"{text!r:.60} is not a device", hint="a number, or names as nvidia.com/gpu=0 (CDI)"
            )
        names.append(text or "")
    return tuple(names)
