"""A resolved Agentfile for people and programs: what it says, and for each value where it came from."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from aos.agentfile.arguments import MARK
from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode, scalar_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.agentfile.nodes import Node

__all__ = ["as_json", "as_yaml"]

_COLUMN = 60
"""Where the notes begin, when a line leaves room."""
_PLAIN = re.compile(r"[A-Za-z0-9_./](?: ?[A-Za-z0-9_./@=+-]|:(?=[^ ]))*")
_BLOCK = re.compile(r"[\x21-\x7e\xa1-\u2027\u2030-\ud7ff][\t\n\x20-\x7e\xa1-\u2027\u2030-\ud7ff]*")
_ESCAPED = re.compile("[^\x20-\x7e\xa0-\u2027\u2030-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def as_yaml(root: Node) -> str:
    """An Agentfile that says the same, each value with its origin in a comment."""
    lines = []
    for text, origin in _lines(root):
        pad = " " * max(2, _COLUMN - len(text))
        lines.append(f"{text}{pad}# {origin}" if origin else text)
    return "\n".join(lines) + "\n"


def as_json(root: Node) -> dict[str, Any]:
    """`agentfile`, and `origins` by JSON Pointer (RFC 6901)."""
    origins: dict[str, str] = {}
    return {"agentfile": _data(root, "", origins), "origins": origins}


def _origin(node: Node) -> str:
    """`file:line`, or the package; and the build arguments that are in the value."""
    document = node.document
    origin = document.file if document.is_package else f"{document.file}:{node.line}"
    if isinstance(node, ScalarNode) and node.arguments:
        origin += f" with args.{', args.'.join(name for name, _ in node.arguments)}"
    return "".join(character if character.isprintable() else "?" for character in origin)


def _lines(node: Node) -> Iterator[tuple[str, str]]:
    """Lines of a block, each with the origin of the value that begins on it."""
    if isinstance(node, MappingNode) and node.value:
        for key, value in node.value:
            assert isinstance(key, ScalarNode)
            yield from _entry(f"{_flow(key)}:", value)
    elif isinstance(node, SequenceNode) and node.value:
        for item in node.value:
            if isinstance(item, ScalarNode) or not item.value:
                yield from _entry("-", item)
                continue
            for number, (text, origin) in enumerate(_lines(item)):
                yield ("  " if number else "- ") + text, origin


def _entry(head: str, value: Node) -> Iterator[tuple[str, str]]:
    if not isinstance(value, ScalarNode) and value.value:
        yield head, ""
        for text, origin in _lines(value):
            yield f"  {text}", origin
    elif isinstance(value, ScalarNode) and _is_block(value):
        text = _escaped(value)
        yield f"{head} {'|' if text.endswith(chr(10)) else '|-'}", _origin(value)
        for line in text.removesuffix("\n").split("\n"):
            yield f"  {line}" if line else "", ""
    else:
        yield f"{head} {_flow(value)}", _origin(value)


def _is_block(node: ScalarNode) -> bool:
    """A text of several lines that reads well as a literal block."""
    text = node.value
    if "\n" not in text or text.endswith("\n\n") or not _BLOCK.fullmatch(text):
        return False
    return all(not line or line.strip() for line in text.split("\n"))


def _flow(node: Node) -> str:
    if isinstance(node, ScalarNode):
        text = _escaped(node)
        if node.plain and scalar_kind(node) != "string":
            return text or "null"
        if _PLAIN.fullmatch(text) and scalar_kind(_plain(node)) == "string":
            return text
        quoted = json.dumps(text, ensure_ascii=False)
        return _ESCAPED.sub(lambda match: f"\\U{ord(match[0]):08x}", quoted)
    return "{}" if isinstance(node, MappingNode) else "[]"


def _plain(node: ScalarNode) -> ScalarNode:
    return ScalarNode(node.document, node.line, node.column, node.value, plain=True)


def _escaped(node: ScalarNode) -> str:
    """As it must be written, so that nothing is put into it again."""
    return node.value.replace(MARK, "$" + MARK)


def _data(node: Node, pointer: str, origins: dict[str, str]) -> Any:
    if isinstance(node, ScalarNode) or not node.value:
        origins[pointer] = _origin(node)
    if isinstance(node, MappingNode):
        found = {}
        for key, value in node.value:
            assert isinstance(key, ScalarNode)
            step = key.value.replace("~", "~0").replace("/", "~1")
            found[key.value] = _data(value, f"{pointer}/{step}", origins)
        return found
    if isinstance(node, SequenceNode):
        return [_data(item, f"{pointer}/{number}", origins) for number, item in enumerate(node.value)]
    match scalar_kind(node):
        case "null":
            return None
        case "boolean":
            return node.value.lower() == "true"
        case "integer" if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", node.value):
            return int(node.value)
        case "number" if "n" not in node.value.lower():
            return float(node.value)
    return _escaped(node)
