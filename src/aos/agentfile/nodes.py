"""A document as nodes with places. Nodes are never changed, so trees may share them (aliases, parents)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from aos.agentfile.document import Document

__all__ = ["MappingNode", "Node", "ScalarNode", "SequenceNode", "arguments_in", "scalar_kind"]


@dataclass(slots=True, eq=False)
class ScalarNode:
    document: Document
    line: int
    column: int
    value: str
    plain: bool = False
    """Written without quotes, so that YAML's rules say what it is; otherwise it is a string."""
    settled: bool = False
    """Its text is final: `${{` in it means nothing."""
    arguments: tuple[tuple[str, str], ...] = ()
    """Build arguments that were put into it, with their values."""
    size: ClassVar[int] = 1
    height: ClassVar[int] = 0


@dataclass(slots=True, eq=False)
class SequenceNode:
    document: Document
    line: int
    column: int
    value: list[Node] = field(default_factory=list)
    size: int = 1
    """Values in it, with aliases written out; itself included."""
    height: int = 0
    """Levels below it."""


@dataclass(slots=True, eq=False)
class MappingNode:
    document: Document
    line: int
    column: int
    value: list[tuple[Node, Node]] = field(default_factory=list)
    size: int = 1
    height: int = 0


Node = ScalarNode | SequenceNode | MappingNode

_KINDS = re.compile(
    "|".join(
        f"(?P<{name}>{pattern})"
        for name, pattern in (
            ("null", "~|null|Null|NULL|"),
            ("boolean", "true|True|TRUE|false|False|FALSE"),
            ("integer", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
            (
                "number",
                r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
                r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            ),
            ("old_boolean", "y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF"),
            ("old_sexagesimal", r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"),
            ("date", "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?"),
            ("old_integer", "[-+]?[0-9][0-9_]*_[0-9_]*|[-+]?0b[01_]+"),
        )
    )
)


def scalar_kind(node: ScalarNode) -> str:
    """`string`, or what a plain scalar is in YAML 1.2's core schema, or would have been in YAML 1.1: where that
    would have decided otherwise (`no`, `1:30`, `2024-01-01`), a reader may be surprised (`old_…`, `date`)."""
    match = _KINDS.fullmatch(node.value) if node.plain else None
    return "string" if match is None else str(match.lastgroup)


def arguments_in(node: Node) -> tuple[tuple[str, str], ...]:
    """The build arguments that were put into a node, with their values; sorted."""
    found: set[tuple[str, str]] = set()
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, ScalarNode):
            found.update(one.arguments)
        elif isinstance(one, SequenceNode):
            pending += one.value
        else:
            pending += [value for _, value in one.value]
    return tuple(sorted(found))
