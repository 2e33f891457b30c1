"""A typed walk over a document's nodes: each method returns a value, or notes a problem and returns None.

So that a file is read to its end and all its problems are told at once.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, TypeVar

from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode, scalar_kind
from aos.agentfile.problems import AgentfileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aos.agentfile.nodes import Node
    from aos.agentfile.problems import Problem

    Fields = dict[str, Node]

__all__ = ["Fields", "Walk"]

_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_T = TypeVar("_T")


class Walk:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def note(self, node: Node, message: str, *, code: str = "agentfile-invalid", hint: str = "") -> None:
        self.problems.append(node.document.problem(node, message, code=code, hint=hint))

    def later(self, node: Node, what: str) -> None:
        """A field that is part of the language and not of this version."""
        self.note(
            node,
            f"{what} is not supported yet",
            code="not-yet-supported",
            hint="this version of aos would have to ignore it, and never does; remove it for now",
        )

    def finish(self) -> None:
        if self.problems:
            raise AgentfileError(self.problems)

    # Shapes.

    def mapping(
        self, node: Node, what: str, known: Iterable[str] | None = None, required: Iterable[str] = ()
    ) -> Fields | None:
        """The fields of a mapping; with `known`, others are problems. Keys are strings and do not repeat."""
        if not isinstance(node, MappingNode):
            self.note(node, f"{what} must be a mapping, not {_shown(node)}", hint="write `key: value` lines")
            return None
        names = list(known) if known is not None else None
        fields: Fields = {}
        for key_node, value in node.value:
            key = self._key(key_node, what)
            if key is None:
                continue
            if key in fields:
                self.note(
                    key_node, f"{what} has {key!r} twice", code="duplicate-key", hint="keep one of them"
                )
            elif names is not None and key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(names)}"
                self.note(key_node, f"{what} has no field {key!r}", code="unknown-field", hint=hint)
            else:
                fields[key] = value
        for name in required:
            if name not in fields:
                self.note(node, f"{what} needs {name!r}", code="missing-field")
        return fields

    def _key(self, node: Node, what: str) -> str | None:
        if not isinstance(node, ScalarNode):
            self.note(node, f"a key of {what} must be a string, not {_shown(node)}")
            return None
        if node.value == "<<" and node.plain:
            self.note(node, "merge keys (`<<`) are not part of YAML 1.2", hint="write the fields out")
            return None
        if scalar_kind(node) not in ("string", "old_boolean"):
            self.note(
                node,
                f"a key of {what} must be a string, not {_shown(node)}",
                hint=f'quote it: "{node.value}"',
            )
            return None
        return str(node.value)

    def items(self, node: Node, what: str) -> list[Node]:
        if not isinstance(node, SequenceNode):
            self.note(
                node, f"{what} must be a list, not {_shown(node)}", hint="write `- item` lines, or [a, b]"
            )
            return []
        return list(node.value)

    # Scalars.

    def string(self, node: Node, what: str, *, empty: bool = True, hint: str = "") -> str | None:
        """`hint`: what to write for what is no string, where quotes would not make it right."""
        if not isinstance(node, ScalarNode):
            self.note(node, f"{what} must be a string, not {_shown(node)}")
            return None
        kind = scalar_kind(node)
        if kind != "string":
            quoted = f'quote it: "{node.value}"' if node.value else 'write "" for an empty one'
            said = f"{what} must be a string, not {_shown(node)}"
            self.note(node, said, code="wrong-type", hint=hint or quoted)
            return None
        if "\0" in node.value:
            self.note(node, f"{what} must not hold a NUL character")
            return None
        if not empty and not node.value.strip():
            self.note(node, f"{what} must not be empty")
            return None
        return str(node.value)

    def strings(self, node: Node, what: str, *, empty: bool = True, blank: bool = False) -> tuple[str, ...]:
        """A list of strings; `empty`: it may have none, `blank`: one of them may be empty."""
        found = [self.string(item, f"an item of {what}", empty=blank) for item in self.items(node, what)]
        if not empty and isinstance(node, SequenceNode) and not node.value:
            self.note(node, f"{what} must not be empty")
        return tuple(text for text in found if text is not None)

    def string_map(self, node: Node, what: str) -> tuple[tuple[str, str], ...]:
        fields = self.mapping(node, what) or {}
        found = ((key, self.string(value, f"{what}.{key}")) for key, value in fields.items())
        return tuple((key, text) for key, text in found if text is not None)

    def boolean(self, node: Node, what: str) -> bool | None:
        if isinstance(node, ScalarNode) and scalar_kind(node) == "boolean":
            return str(node.value).lower() == "true"
        self.note(node, f"{what} must be true or false, not {_shown(node)}", code="wrong-type")
        return None

    def integer(self, node: Node, what: str, *, least: int) -> int | None:
        if isinstance(node, ScalarNode) and scalar_kind(node) == "integer" and _DECIMAL.fullmatch(node.value):
            if len(node.value) <= 18 and (number := int(node.value)) >= least:
                return number
            self.note(node, f"{what} must be at least {least} and have at most 18 digits")
            return None
        self.note(node, f"{what} must be a whole number, not {_shown(node)}", code="wrong-type")
        return None

    def amount(self, node: Node, what: str, parse: Callable[[str], _T]) -> _T | None:
        """A quantity: a plain number, or a string with a unit."""
        if isinstance(node, ScalarNode) and scalar_kind(node) in ("string", "integer", "number"):
            try:
                return parse(node.value)
            except ValueError as error:
                self.note(node, f"{what} must be {error}, not {node.value!r:.60}")
                return None
        self.note(node, f"{what} must be a quantity, not {_shown(node)}", code="wrong-type")
        return None

    def choice(self, node: Node, what: str, now: Iterable[str], later: Iterable[str] = ()) -> str | None:
        text = self.string(node, what)
        if text is None or text in now:
            return text
        if text in later:
            self.later(node, f"{what} {text!r}")
            return None
        self.note(node, f"{what} cannot be {text!r:.60}", hint=f"choose from: {', '.join([*now, *later])}")
        return None

    def data(self, node: Node, what: str) -> Any:
        """Any JSON-representable value, for plugins."""
        if isinstance(node, SequenceNode):
            return [self.data(item, what) for item in node.value]
        if isinstance(node, MappingNode):
            fields = self.mapping(node, what) or {}
            return {key: self.data(value, f"{what}.{key}") for key, value in sorted(fields.items())}
        kind = scalar_kind(node)
        if kind == "null":
            return None
        if kind == "boolean":
            return node.value.lower() == "true"
        if kind == "integer" and node.value.lstrip("+-").isdecimal() and len(node.value) <= 18:
            return int(node.value)
        if kind == "number":
            number = float(node.value.replace(".inf", "inf").replace(".nan", "nan"))
            if number == number and abs(number) != float("inf"):
                return number
        if kind == "string":
            return node.value
        self.note(node, f"{what} must be JSON data, not {_shown(node)}", hint=f'quote it: "{node.value}"')
        return None


def _shown(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    kind = scalar_kind(node)
    words = {
        "null": "nothing",
        "boolean": f"the boolean {node.value}",
        "integer": f"the number {node.value:.40}",
        "number": f"the number {node.value:.40}",
        "old_boolean": f"{node.value}, which many YAML readers take for a boolean",
        "old_sexagesimal": f"{node.value:.40}, which many YAML readers take for a number to the base of 60",
        "old_integer": f"{node.value:.40}, which many YAML readers take for a number",
        "date": f"the date {node.value:.40}",
    }
    return words.get(kind, f"{node.value!r:.60}")
