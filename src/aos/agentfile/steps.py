"""The steps of a stage: copy, install, run, plugin."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, cast

from aos.agentfile.definition import Copy, Install, Plugin, Run
from aos.agentfile.mounts import FIELDS, read_mode, read_mounts
from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode, scalar_kind

if TYPE_CHECKING:
    from aos.agentfile.definition import Step
    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Walk

__all__ = ["read_step"]

_KINDS = ("copy", "install", "run", "plugin")
_OWNER = re.compile(r"({0})(?::({0}))?".format(r"[0-9]{1,9}|[A-Za-z_][A-Za-z0-9_.-]{0,31}"))
_PLUGIN = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def read_step(walk: Walk, node: Node) -> Step | None:
    fields = walk.mapping(node, "a step", _KINDS)
    if fields is None:
        return None
    if len(fields) != 1:
        if isinstance(node, MappingNode) and (len(fields) > 1 or not node.value):
            found = ", ".join(fields) or "nothing"
            walk.note(
                node,
                f"a step is exactly one of {', '.join(_KINDS)}, not {found}",
                hint="one `- ` for each step",
            )
        return None
    ((kind, value),) = fields.items()
    return {"copy": _copy, "install": _install, "run": _run, "plugin": _plugin}[kind](walk, value)


def _copy(walk: Walk, node: Node) -> Copy | None:
    fields = walk.mapping(node, "copy", ("src", "dest", "from", "owner", "mode"), ("src", "dest"))
    if fields is None or "src" not in fields or "dest" not in fields:
        return None
    if isinstance(fields["src"], SequenceNode):
        src = walk.strings(fields["src"], "copy.src", empty=False)
    else:
        one = walk.string(fields["src"], "copy.src", empty=False)
        src = () if one is None else (one,)
    dest = walk.string(fields["dest"], "copy.dest", empty=False)
    from_stage = walk.string(fields["from"], "copy.from", empty=False) if "from" in fields else ""
    owner: tuple[int | str, int | str] = (0, 0)
    mode = read_mode(walk, fields["mode"], "copy.mode") if "mode" in fields else None
    if "owner" in fields:
        if match := _OWNER.fullmatch(_text(fields["owner"])):
            owner = _owner(match[1], match[2] or "")
        else:
            walk.note(
                fields["owner"],
                "copy.owner must be `user` or `user:group`, each a number or a name",
                hint='such as "1000:1000", or agent',
            )
    return Copy(src, dest or "", from_stage or "", owner, mode)


def _owner(user: str, group: str) -> tuple[int | str, int | str]:
    """A number alone is the group's, too; a name alone has the group that the image gives it."""
    if user.isdigit():
        return int(user), int(group) if group.isdigit() else group or int(user)
    return user, int(group) if group.isdigit() else group


def _install(walk: Walk, node: Node) -> Install | None:
    fields = walk.mapping(node, "install", ("pip", "apt", "npm", "network"))
    if fields is None:
        return None
    network = walk.boolean(fields["network"], "install.network") if "network" in fields else True
    tools = [name for name in ("pip", "apt", "npm") if name in fields]
    if len(tools) != 1:
        walk.note(node, "install needs exactly one of pip, apt", hint="one step for each")
        return None
    tool = tools[0]
    if tool == "npm":
        walk.later(fields["npm"], "install.npm")
        return None
    value = fields[tool]
    files = {"requirements": "", "project": ""}
    if isinstance(value, MappingNode):
        known = ("packages", *files) if tool == "pip" else ("packages",)
        inner = walk.mapping(value, f"install.{tool}", (*known, "network")) or {}
        packages = walk.strings(inner["packages"], f"install.{tool}.packages") if "packages" in inner else ()
        for name in files.keys() & inner.keys():
            files[name] = walk.string(inner[name], f"install.pip.{name}", empty=False) or ""
        if "network" in inner:
            network = walk.boolean(inner["network"], f"install.{tool}.network")
        if not inner.keys() & {*known}:
            walk.note(value, f"install.{tool} needs {' or '.join(known)}", code="missing-field")
        if "project" in inner and inner.keys() & {"packages", "requirements"}:
            walk.note(
                inner["project"],
                "install.pip.project stands alone: its uv.lock says all that is installed",
                hint="`uv add` the packages to the project, or install them in a step of their own",
            )
    else:
        packages = walk.strings(value, f"install.{tool}", empty=False)
    for package in packages:
        if package.startswith("-"):
            walk.note(value, f"install.{tool}: {package!r:.60} is an option, not a package")
    return Install(
        "pip" if tool == "pip" else "apt",
        packages,
        files["requirements"],
        files["project"],
        network=network is not False,
    )


def _run(walk: Walk, node: Node) -> Run | None:
    if not isinstance(node, MappingNode):
        args = _command(walk, node, "run")
        return None if args is None else Run(args)
    known = ("command", "env", "user", "workDir", "network", *FIELDS)
    fields = walk.mapping(node, "run", known, ("command",))
    if fields is None or "command" not in fields:
        return None
    args = _command(walk, fields["command"], "run.command")
    env = walk.string_map(fields["env"], "run.env") if "env" in fields else ()
    user = walk.string(fields["user"], "run.user", empty=False) if "user" in fields else ""
    work_dir = walk.string(fields["workDir"], "run.workDir", empty=False) if "workDir" in fields else ""
    network = _network(walk, fields["network"]) if "network" in fields else "none"
    mounts = read_mounts(walk, fields)
    return None if args is None else Run(args, env, user or "", work_dir or "", network, *mounts)


def _network(walk: Walk, node: Node) -> Literal["none", "host", "bridge"]:
    """A mode, or whether there is one at all."""
    if isinstance(node, ScalarNode) and scalar_kind(node) == "boolean":
        return "host" if walk.boolean(node, "run.network") else "none"
    mode = walk.choice(node, "run.network", ("none", "host", "bridge"))
    return cast("Literal['none', 'host', 'bridge']", mode or "none")


def _command(walk: Walk, node: Node, what: str) -> tuple[str, ...] | None:
    """A string is for the shell, a list is executed as it is."""
    if isinstance(node, SequenceNode):
        return walk.strings(node, what, empty=False) or None
    text = walk.string(node, what, empty=False)
    return None if text is None else ("/bin/sh", "-c", text)


def _plugin(walk: Walk, node: Node) -> Plugin | None:
    if isinstance(node, ScalarNode):
        fields = {"name": node}
    else:
        found = walk.mapping(node, "plugin", ("name", "with"), ("name",))
        if found is None or "name" not in found:
            return None
        fields = found  # type: ignore[assignment]
    name = walk.string(fields["name"], "plugin.name", empty=False)
    if name is not None and not _PLUGIN.fullmatch(name):
        walk.note(fields["name"], f"{name!r:.60} is not a plugin's name", hint="such as debian")
    options: tuple[tuple[str, object], ...] = ()
    if "with" in fields:
        raw = walk.mapping(fields["with"], "plugin.with") or {}
        options = tuple((key, walk.data(value, f"plugin.with.{key}")) for key, value in sorted(raw.items()))
    return None if name is None else Plugin(name, options)


def _text(node: Node) -> str:
    return node.value if isinstance(node, ScalarNode) else ""
