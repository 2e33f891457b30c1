"""Build arguments: `args` declares them, `${{ args.NAME }}` puts one into a text, `--build-arg` gives a value.

A shell's own `${NAME}` is never touched, and only what names an argument depends on it. What results is a string:
no rule of YAML is applied to it.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode, scalar_kind
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Walk

__all__ = ["MARK", "build_arguments", "fill_in"]

MARK = "${{"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACE = re.compile(r"\$\$\{\{|\$\{\{(?:\s*args\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\})?")
_FIELDS = ("from", "steps", "stages", "config", "entrypoint", "metadata")
_METADATA = ("version", "description", "labels")


def build_arguments(words: Iterable[str], environ: Mapping[str, str]) -> dict[str, str | None]:
    """The values of `--build-arg NAME=VALUE`; `NAME` alone has the environment's value, or None, as with docker.

    The last of a name counts. Raise InvalidArgument (`build-arg-invalid`)."""
    values: dict[str, str | None] = {}
    for word in words:
        name, equals, text = word.partition("=")
        value = text if equals else environ.get(name)
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            message = f"--build-arg {name}: the value is not UTF-8"
            raise InvalidArgument(message, code="build-arg-invalid") from error
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"--build-arg {word!r:.80}: {name!r:.60} cannot name a build argument",
                code="build-arg-invalid",
                hint="--build-arg NAME=VALUE, or NAME alone for the value in the environment",
            )
        values[name] = value
    return values


def fill_in(walk: Walk, root: MappingNode, given: Mapping[str, str | None]) -> MappingNode:
    """The tree with the values of its arguments, and without `args`. Problems are noted in `walk`:
    `unknown-argument`, `missing-argument`, `malformed-argument`."""
    declared: dict[str, Node] = {}
    place: Node = root
    for key, value in root.value:
        if isinstance(key, ScalarNode) and key.value == "args":
            place = value
            declared |= walk.mapping(value, "args") or {}
    values: dict[str, str | None] = {}
    for name, node in declared.items():
        if not _NAME.fullmatch(name):
            hint = "letters, digits and '_', not a digit first"
            walk.note(node, f"{name!r:.60} cannot name a build argument", hint=hint)
        nothing = isinstance(node, ScalarNode) and scalar_kind(node) == "null"
        values[name] = None if nothing else walk.string(node, f"args.{name}")
    for name, text in given.items():
        if name not in declared:
            _note_unknown(walk, place, f"--build-arg {name}: ", name, declared)
        elif text is not None:
            values[name] = text
    filling = _Filling(walk, declared, values)
    pairs: list[tuple[Node, Node]] = []
    for key, value in root.value:
        name = key.value if isinstance(key, ScalarNode) else ""
        if name == "metadata" and isinstance(value, MappingNode):
            value = filling.mapping(value, _METADATA)
        elif name in _FIELDS:
            value = filling.node(value)
        else:
            filling.refuse(value)
        if name != "args":
            pairs.append((key, value))
    return MappingNode(root.document, root.line, root.column, pairs)


class _Filling:
    def __init__(self, walk: Walk, declared: Mapping[str, Node], values: Mapping[str, str | None]) -> None:
        self._walk = walk
        self._declared = declared
        self._values = values
        self._missing: set[str] = set()
        self._done: dict[int, Node] = {}
        """By id: what aliases share is filled in once."""

    def node(self, node: Node) -> Node:
        if isinstance(node, ScalarNode):
            return self._scalar(node) if MARK in node.value and not node.settled else node
        known = self._done.get(id(node))
        if known is None:
            if isinstance(node, MappingNode):
                known = self.mapping(node)
            else:
                items = [self.node(item) for item in node.value]
                known = SequenceNode(node.document, node.line, node.column, items)
            self._done[id(node)] = known
        return known

    def mapping(self, node: MappingNode, only: tuple[str, ...] = ()) -> MappingNode:
        """With the values of its fields, or of those named, filled in."""
        pairs: list[tuple[Node, Node]] = []
        for key, value in node.value:
            self.refuse(key)
            if only and not (isinstance(key, ScalarNode) and key.value in only):
                self.refuse(value)
                pairs.append((key, value))
            else:
                pairs.append((key, self.node(value)))
        return MappingNode(node.document, node.line, node.column, pairs)

    def refuse(self, node: Node) -> None:
        """Note every use of an argument where none can be."""
        if isinstance(node, ScalarNode):
            if MARK in node.value and not node.settled:
                hint = (
                    f"they are put into values of {', '.join(_FIELDS[:-1])}, metadata.{'|'.join(_METADATA)}"
                )
                self._walk.note(
                    node, "a build argument cannot be used here", code="malformed-argument", hint=hint
                )
        elif isinstance(node, SequenceNode):
            for item in node.value:
                self.refuse(item)
        else:
            for key, value in node.value:
                self.refuse(key)
                self.refuse(value)

    def _scalar(self, node: ScalarNode) -> ScalarNode:
        used: dict[str, str] = {}

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if match[0] == "$" + MARK:
                return MARK
            if name is None:
                hint = "write ${{ args.NAME }}, or $${{ for the characters themselves"
                code = "malformed-argument"
                self._walk.note(node, "`${{` does not begin a build argument here", code=code, hint=hint)
            elif name not in self._values:
                _note_unknown(self._walk, node, "", name, self._declared)
            elif (text := self._values[name]) is None:
                self._note_missing(name)
            else:
                used[name] = text
            return used.get(name, "")

        text = _PLACE.sub(value, node.value)
        return ScalarNode(
            node.document, node.line, node.column, text, settled=True, arguments=tuple(sorted(used.items()))
        )

    def _note_missing(self, name: str) -> None:
        if name not in self._missing:
            self._missing.add(name)
            node = self._declared[name]
            hint = f"--build-arg {name}=VALUE, or a default in args"
            self._walk.note(
                node, f"the build argument {name} has no value", code="missing-argument", hint=hint
            )


def _note_unknown(walk: Walk, node: Node, why: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"args declares: {', '.join(names) or 'nothing'}"
    walk.note(node, f"{why}there is no build argument {name!r:.60}", code="unknown-argument", hint=hint)
