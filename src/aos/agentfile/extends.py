"""`extends`: the files and the package that an Agentfile stands on, read and merged into one tree.

A parent that is a file comes with its steps; a package is built, so the child stands on its image and takes its
settings.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.agentfile.definition import Definition
from aos.agentfile.document import Document
from aos.agentfile.merge import merge
from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode
from aos.agentfile.problems import AgentfileError
from aos.agentfile.read import FIELDS, read_head
from aos.errors import AosError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Walk

    Parents = Callable[[str], "Package"]

__all__ = ["Package", "Parents", "resolve_extends"]

_CAMEL = re.compile("_([a-z])")
_LIMIT = 32
"""Files that extend each other; far more than anybody can follow."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package to extend, as a registry knows it."""

    reference: str
    """With its digest, so that it means the same package later."""
    definition: Mapping[str, Any] | None
    """As `Definition.to_json` wrote it; None: the image was not made by aos."""


def resolve_extends(walk: Walk, document: Document, parents: Parents | None) -> Node:
    """The root of the file that all would be if they were one, without `extends`.

    `parents` finds a package by its reference and raises what the registry raises. Raise AgentfileError when a file
    of the chain is missing or is no Agentfile: all that is wrong with it, and the chain that leads to it."""
    chain = [document]
    fields = [read_head(walk, document.root)]
    walk.finish()
    seen = {os.path.realpath(document.file)}
    while "extends" in fields[-1]:
        node = fields[-1]["extends"]
        text = walk.string(node, "extends", empty=False)
        walk.finish()
        if len(chain) == _LIMIT:
            raise _refused(node, f"more than {_LIMIT} files extend each other")
        chain.append(_parent(node, text or "", seen, parents))
        fields.append(read_head(walk, chain[-1].root))
        walk.finish()
    merged = fields.pop()
    while fields:
        merged = merge(walk, merged, fields.pop())
    root = document.root
    pairs: list[tuple[Node, Node]] = [
        (ScalarNode(merged[name].document, merged[name].line, merged[name].column, name), merged[name])
        for name in FIELDS
        if name in merged
    ]
    return MappingNode(document, root.line, root.column, pairs)


def _parent(node: Node, text: str, seen: set[str], parents: Parents | None) -> Document:
    """Read what `extends` names; `seen` are the files of the chain so far."""
    if "${{" in text:
        raise _refused(node, "a build argument cannot be used in extends", "name the parent itself")
    if text.startswith(("./", "../")):
        return _file(node, text, seen)
    if text.startswith(("/", "~")):
        hint = "write a path relative to this file, so that it holds on other machines"
        raise _refused(node, f"extends must not be an absolute path: {text!r:.200}", hint)
    return _package(node, text, parents)


def _file(node: Node, text: str, seen: set[str]) -> Document:
    path = Path(node.document.file).parent / text
    real = os.path.realpath(path)
    plain = os.path.normpath(path)
    shown = plain if os.path.realpath(plain) == real else str(path)
    chain = (node.document.place(node), *node.document.via)
    if real in seen:
        raise _refused(node, f"{shown} extends itself, by way of {' and '.join(reversed(chain))}")
    seen.add(real)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "paths are relative to the file that names them"
        raise _refused(node, f"there is no {shown}", hint, code="extends-not-found") from error
    except OSError as error:
        raise _refused(node, f"{shown} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise _refused(node, f"{shown} is a directory", f"name the file in it: {text.rstrip('/')}/Agentfile")
    if not stat.S_ISREG(mode):
        raise _refused(node, f"{shown} is not a file")
    try:
        return Document.load(Path(shown), chain)
    except AgentfileError:
        raise
    except AosError as error:
        raise _refused(node, error.message, error.hint or "") from error


def _package(node: Node, text: str, parents: Parents | None) -> Document:
    try:
        if parents is None:
            raise NotFound(f"no package {text!r:.200}: there is no registry here")
        package = parents(text)
        if package.definition is None:
            message = f"{text!r:.200} was not made by aos: it has no definition to extend"
            raise InvalidArgument(message, hint=f"stand on its files instead: from: {text}")
        definition = Definition.from_json(dict(package.definition))
    except AosError as error:
        hint = f"for the file, write ./{text}" if _is_beside(node, text) else error.hint
        raise _refused(
            node,
            f"cannot extend {text!r:.200}: {error.message}",
            hint or "",
            code="extends-not-found" if isinstance(error, NotFound) else "extends-invalid",
        ) from error
    document = Document(package.reference, (node.document.place(node), *node.document.via), is_package=True)
    document.root = _node(document, _settings(definition, package.reference))
    return document


def _is_beside(node: Node, text: str) -> bool:
    try:
        return (Path(node.document.file).parent / text).is_file()
    except OSError:
        return False


def _settings(definition: Definition, reference: str) -> dict[str, Any]:
    """What a package gives to those that extend it, in the Agentfile's language: its image, and its settings."""
    raw = definition.to_json()
    config = raw.get("config", {})
    names = {"env": "env", "work_dir": "workDir", "user": "user", "image": "image"}
    return {
        "apiVersion": "aos.io/v1",
        "kind": "AgentPackage",
        "metadata": raw["metadata"],
        "from": reference,
        "config": {names[name]: value for name, value in config.items()},
        **{name: raw[name] for name in ("entrypoint", "resources", "network", "secrets") if name in raw},
        **_lifecycle(raw),
    }


def _lifecycle(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Its fields have the Agentfile's names, but for their spelling."""
    found = {
        name: _in_camel_case(raw[name]) for name in ("restart", "health", "readiness", "hooks") if name in raw
    }
    if "restart_limit" in raw:
        found["restart"] = {"policy": raw.get("restart", "never"), "limit": raw["restart_limit"]}
    if "stop_grace" in raw:
        found["stopGracePeriod"] = raw["stop_grace"]
    return found


def _in_camel_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            _CAMEL.sub(lambda match: match[1].upper(), key): _in_camel_case(one) for key, one in value.items()
        }
    return [_in_camel_case(one) for one in value] if isinstance(value, list) else value


def _node(document: Document, value: object) -> Node:
    """Data as nodes; texts are final: a package has no arguments left."""
    if isinstance(value, dict):
        pairs = [(_node(document, name), _node(document, item)) for name, item in value.items()]
        return MappingNode(document, 1, 1, pairs)
    if isinstance(value, list):
        return SequenceNode(document, 1, 1, [_node(document, item) for item in value])
    return ScalarNode(document, 1, 1, str(value), plain=not isinstance(value, str), settled=True)


def _refused(node: Node, message: str, hint: str = "", *, code: str = "extends-invalid") -> AgentfileError:
    return AgentfileError([node.document.problem(node, message, code=code, hint=hint)])
