"""From YAML or JSON text to nodes: libyaml's events, composed without recursion and within bounds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import yaml

from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode

if TYPE_CHECKING:
    from aos.agentfile.document import Document
    from aos.agentfile.nodes import Node
    from aos.agentfile.problems import AgentfileError

__all__ = ["NODE_LIMIT", "compose"]

NODE_LIMIT = 400_000
"""Values, with aliases written out: 10,000 steps of 40 values."""
_DEPTH_LIMIT = 50
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
) | {None, "!"}
_UNREADABLE = yaml.reader.Reader.NON_PRINTABLE
"""The same again would take 5 ms to compile."""
_N = TypeVar("_N", ScalarNode, SequenceNode | MappingNode)
_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
"""How JSON writes characters beyond U+FFFF, which YAML does not know."""


def compose(document: Document, text: str) -> Node:
    """The root node. Raise AgentfileError (`agentfile-syntax`)."""
    if bad := _UNREADABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - (text.rfind("\n", 0, bad.start()) + 1) + 1
        raise document.error(line, column, f"the character U+{ord(bad[0]):04X} is not allowed in YAML")
    if text.lstrip().startswith("{"):
        text = _SURROGATES.sub(_character, text)
    composer = _Composer(document)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax(document, error) from error
    except (yaml.YAMLError, ValueError) as error:
        raise document.error(1, 1, f"not YAML: {str(error).splitlines()[0]}") from error
    if composer.root is None:
        raise document.error(1, 1, "the file is empty", hint="`aos init` writes a good start")
    return composer.root


class _Composer:
    def __init__(self, document: Document) -> None:
        self.root: Node | None = None
        self._document = document
        self._open: list[SequenceNode | MappingNode] = []
        self._keys: list[Node | None] = []
        """For each open collection, the key whose value comes next."""
        self._anchors: dict[str, Node] = {}

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.CollectionEndEvent):
            self._keys.pop()
            self._put(self._open.pop())
            return
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if isinstance(event, yaml.ScalarEvent):
            if "${{" in event.value:
                self._document.has_marks = True
            self._put(
                self._new(event, ScalarNode(self._document, line, column, event.value, not event.style))
            )
        elif isinstance(event, yaml.CollectionStartEvent):
            kind = SequenceNode if isinstance(event, yaml.SequenceStartEvent) else MappingNode
            self._open.append(self._new(event, kind(self._document, line, column)))
            self._keys.append(None)
            if len(self._open) > _DEPTH_LIMIT:
                raise self._too_deep(line, column)
        elif isinstance(event, yaml.AliasEvent):
            self._put(self._aliased(event.anchor or "", line, column))
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            hint = "one Agentfile, one document"
            raise self._document.error(line, column, "a second document begins here", hint=hint)

    def _new(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, node: _N) -> _N:
        if event.tag not in _TAGS:
            message = f"the tag {event.tag!r:.60} has no meaning here"
            raise self._document.error(node.line, node.column, message, hint="remove it")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _aliased(self, anchor: str, line: int, column: int) -> Node:
        node = self._anchors.get(anchor)
        if node is None or any(node is one for one in self._open):
            why = "undefined alias" if node is None else "alias of what it stands in:"
            hint = "an alias needs an anchor before it, and outside of it"
            raise self._document.error(line, column, f"{why} {anchor!r:.60}", hint=hint)
        if node.size + sum(one.size for one in self._open) > NODE_LIMIT:
            hint = "write it out, and smaller"
            message = f"aliases expand to more than {NODE_LIMIT} values"
            raise self._document.error(line, column, message, hint=hint)
        if node.height + len(self._open) > _DEPTH_LIMIT:
            raise self._too_deep(line, column)
        return node

    def _put(self, node: Node) -> None:
        """Into what is open, as a key, a value or an item."""
        if not self._open:
            self.root = node
            return
        inside = self._open[-1]
        inside.size += node.size
        inside.height = max(inside.height, node.height + 1)
        if inside.size > NODE_LIMIT:
            raise self._document.error(node.line, node.column, f"more than {NODE_LIMIT} values")
        key = self._keys[-1]
        if isinstance(inside, SequenceNode):
            inside.value.append(node)
        elif key is None:
            self._keys[-1] = node
        else:
            inside.value.append((key, node))
            self._keys[-1] = None

    def _too_deep(self, line: int, column: int) -> AgentfileError:
        return self._document.error(line, column, f"more than {_DEPTH_LIMIT} levels of nesting")


def _syntax(document: Document, error: yaml.MarkedYAMLError) -> AgentfileError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = error.problem or "not YAML"
    source = document.lines[line - 1] if line <= len(document.lines) else ""
    if "\t" in source[: max(column, 1)] or "'\\t'" in problem:
        return document.error(line, column, "a tab cannot indent YAML", hint="use spaces")
    context = f" ({error.context})" if error.context else ""
    hint = "quote values that hold ': ', ' #', or begin with one of [ ] { } & * ! | > % @"
    if "${" in source:
        hint = "inside of [ ] and { }, quote values that hold ${"
    return document.error(line, column, f"not YAML: {problem}{context}", hint=hint)


def _character(match: re.Match[str]) -> str:
    return chr(0x10000 + ((int(match[1], 16) - 0xD800) << 10) + int(match[2], 16) - 0xDC00)
