"""What a `run` step sees beside its stage: cache, secrets, mounts, ssh."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, cast, get_args

from aos.agentfile.definition import BindMount, CacheMount, Secret, SecretMount
from aos.agentfile.nodes import ScalarNode, scalar_kind

if TYPE_CHECKING:
    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Fields, Walk

__all__ = ["FIELDS", "read_mode", "read_mounts"]

FIELDS = ("cache", "secrets", "mounts", "ssh")
_Sharing = Literal["shared", "private", "locked"]
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODE = re.compile(r"0?[0-7]{3}|0?[0-7]{4}|0o[0-7]{3,4}")

Mounts = tuple[
    tuple[CacheMount, ...], tuple[SecretMount, ...], tuple[BindMount, ...], tuple[str, ...]
]  # in the order of FIELDS


def read_mounts(walk: Walk, fields: Fields) -> Mounts:
    """The fields of a `run` step that are here. No two of them may have the same target."""
    taken: set[str] = set()

    def target(inner: Fields, what: str) -> str:
        path = _path(walk, inner["target"], f"{what}.target", absolute=True)
        if path and path in taken:
            walk.note(inner["target"], f"two mounts of the step have the target {path!r:.80}")
        taken.add(path)
        return path

    caches, secrets, binds = [], [], []
    for node in walk.items(fields["cache"], "run.cache") if "cache" in fields else ():
        inner = walk.mapping(node, "run.cache", ("target", "id", "sharing"), ("target",))
        if inner and "target" in inner:
            path = target(inner, "run.cache")
            name = walk.string(inner["id"], "run.cache.id", empty=False) if "id" in inner else path
            sharing = "shared"
            if "sharing" in inner:
                sharing = walk.choice(inner["sharing"], "run.cache.sharing", get_args(_Sharing)) or "shared"
            caches.append(CacheMount(path, name or "", cast("_Sharing", sharing)))
    for node in walk.items(fields["secrets"], "run.secrets") if "secrets" in fields else ():
        if isinstance(node, ScalarNode):
            inner = {"id": node}
        else:
            known = ("id", "target", "env", "required", "mode")
            found = walk.mapping(node, "run.secrets", known, ("id",))
            if not found or "id" not in found:
                continue
            inner = found
        secrets.append(_secret(walk, inner, target(inner, "run.secrets") if "target" in inner else ""))
    for node in walk.items(fields["mounts"], "run.mounts") if "mounts" in fields else ():
        inner = walk.mapping(node, "run.mounts", ("target", "from", "source"), ("target",))
        if inner and "target" in inner:
            origin = walk.string(inner["from"], "run.mounts.from", empty=False) if "from" in inner else ""
            source = _path(walk, inner["source"], "run.mounts.source") if "source" in inner else "/"
            binds.append(BindMount(target(inner, "run.mounts"), origin or "", source))
    ssh = _ssh(walk, fields["ssh"]) if "ssh" in fields else ()
    return tuple(caches), tuple(secrets), tuple(binds), ssh


def read_secrets(walk: Walk, node: Node) -> tuple[Secret, ...]:
    """`secrets` of the agent itself: names, or mappings."""
    found: dict[str, Secret] = {}
    targets: set[str] = set()
    for item in walk.items(node, "secrets"):
        inner: Fields | None = {"name": item}
        if not isinstance(item, ScalarNode):
            inner = walk.mapping(item, "secrets", ("name", "target", "env", "required"), ("name",))
        if not inner or "name" not in inner:
            continue
        name = _id(walk, inner["name"], "secrets.name")
        target = _path(walk, inner["target"], "secrets.target", absolute=True) if "target" in inner else ""
        env = walk.boolean(inner["env"], "secrets.env") if "env" in inner else False
        required = walk.boolean(inner["required"], "secrets.required") if "required" in inner else True
        if env and not _VARIABLE.fullmatch(name):
            walk.note(inner["name"], f"{name!r:.60} cannot name a variable", hint="letters, digits and '_'")
        if name in found or (target and target in targets):
            walk.note(item, f"two secrets have the name or the target of {name!r:.60}")
        targets.add(target)
        found[name] = Secret(name, target, env is True, required is not False)
    return tuple(found.values())


def read_mode(walk: Walk, node: Node, what: str) -> int | None:
    """Permission bits, octal however they are written."""
    text = node.value if isinstance(node, ScalarNode) else ""
    if _MODE.fullmatch(text):
        return int(text.removeprefix("0o"), 8)
    walk.note(node, f"{what} must be an octal mode", hint='such as "0755"')
    return None


def _secret(walk: Walk, fields: Fields, target: str) -> SecretMount:
    name = _id(walk, fields["id"], "run.secrets.id")
    env = walk.string(fields["env"], "run.secrets.env", empty=False) if "env" in fields else ""
    if env and not _VARIABLE.fullmatch(env):
        walk.note(fields["env"], f"{env!r:.60} cannot name a variable", hint="letters, digits and '_'")
    required = walk.boolean(fields["required"], "run.secrets.required") if "required" in fields else True
    mode = read_mode(walk, fields["mode"], "run.secrets.mode") if "mode" in fields else None
    if "env" not in fields and "target" not in fields:
        target = f"/run/secrets/{name}"
    return SecretMount(name, target, env or "", required is not False, 0o400 if mode is None else mode)


def _ssh(walk: Walk, node: Node) -> tuple[str, ...]:
    """`true` is the agent called `default`."""
    if isinstance(node, ScalarNode) and scalar_kind(node) == "boolean":
        return ("default",) if walk.boolean(node, "run.ssh") else ()
    return tuple(dict.fromkeys(_id(walk, item, "an item of run.ssh") for item in walk.items(node, "run.ssh")))


def _id(walk: Walk, node: Node, what: str) -> str:
    text = walk.string(node, what, empty=False)
    if text is not None and not _ID.fullmatch(text):
        walk.note(node, f"{text!r:.60} cannot be an id", hint="letters, digits, '_', '.', '-'; at most 128")
    return text or ""


def _path(walk: Walk, node: Node, what: str, *, absolute: bool = False) -> str:
    """A path without `..`; a target is absolute and not the root. Repeated and trailing slashes are dropped."""
    text = walk.string(node, what, empty=False)
    if text is None:
        return ""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        walk.note(node, f"{what} must not hold '..'", code="path-escapes", hint="name the directory itself")
    elif absolute and not (text.startswith("/") and parts):
        walk.note(node, f"{what} must be absolute, and not /", hint=f"such as /{'/'.join(parts) or 'cache'}")
    return ("/" if text.startswith("/") else "") + "/".join(parts) or "."
