"""A typed walk over a document's nodes: each method returns a value, or notes a problem and returns None.

So that a file is read to its end and all its problems are told at once.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from aos.agentfile.document import scalar_kind
from aos.agentfile.problems import AgentfileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aos.agentfile.document import Document
    from aos.agentfile.problems import Problem

__all__ = ["Fields", "Walk"]

_DECIMAL = re.compile(r"0|[1-9][0-9]*")
_NODE_LIMIT = 50_000
_DEPTH_LIMIT = 50
_T = TypeVar("_T")
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)

Fields = dict[str, yaml.Node]


class Walk:
    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[Problem] = []
        self._check_size(document.root)

    def note(self, node: yaml.Node, message: str, *, code: str = "agentfile-invalid", hint: str = "") -> None:
        self.problems.append(self._document.problem(node, message, code=code, hint=hint))

    def later(self, node: yaml.Node, what: str) -> None:
        """A field that is part of the language and not of this version."""
        self.note(
            node,
            f"{what} is not supported yet",
            code="not-yet-supported",
            hint="this version of aos would have to ignore it, and never does; remove it for now",
        )

    def place(self, node: yaml.Node) -> str:
        return f"{self._document.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def finish(self) -> None:
        if self.problems:
            raise AgentfileError(self.problems)

    # Shapes.

    def mapping(
        self, node: yaml.Node, what: str, known: Iterable[str] | None = None, required: Iterable[str] = ()
    ) -> Fields | None:
        """The fields of a mapping; with `known`, others are problems. Keys are strings and do not repeat."""
        if not isinstance(node, yaml.MappingNode):
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

    def _key(self, node: yaml.Node, what: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.note(node, f"a key of {what} must be a string, not {_shown(node)}")
            return None
        if node.value == "<<" and not node.style:
            self.note(node, "merge keys (`<<`) are not part of YAML 1.2", hint="write the fields out")
            return None
        if scalar_kind(node) not in ("string", "old boolean"):
            self.note(
                node,
                f"a key of {what} must be a string, not {_shown(node)}",
                hint=f'quote it: "{node.value}"',
            )
            return None
        return str(node.value)

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            self.note(
                node, f"{what} must be a list, not {_shown(node)}", hint="write `- item` lines, or [a, b]"
            )
            return []
        return list(node.value)

    # Scalars.

    def string(self, node: yaml.Node, what: str, *, empty: bool = True) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.note(node, f"{what} must be a string, not {_shown(node)}")
            return None
        kind = scalar_kind(node)
        if kind != "string":
            quoted = f'quote it: "{node.value}"' if node.value else 'write "" for an empty one'
            self.note(node, f"{what} must be a string, not {_shown(node)}", code="wrong-type", hint=quoted)
            return None
        if "\0" in node.value:
            self.note(node, f"{what} must not hold a NUL character")
            return None
        if not empty and not node.value.strip():
            self.note(node, f"{what} must not be empty")
            return None
        return str(node.value)

    def strings(
        self, node: yaml.Node, what: str, *, empty: bool = True, blank: bool = False
    ) -> tuple[str, ...]:
        """A list of strings; `empty`: it may have none, `blank`: one of them may be empty."""
        found = [self.string(item, f"an item of {what}", empty=blank) for item in self.items(node, what)]
        if not empty and isinstance(node, yaml.SequenceNode) and not node.value:
            self.note(node, f"{what} must not be empty")
        return tuple(text for text in found if text is not None)

    def string_map(self, node: yaml.Node, what: str) -> tuple[tuple[str, str], ...]:
        fields = self.mapping(node, what) or {}
        found = ((key, self.string(value, f"{what}.{key}")) for key, value in fields.items())
        return tuple((key, text) for key, text in found if text is not None)

    def boolean(self, node: yaml.Node, what: str) -> bool | None:
        if isinstance(node, yaml.ScalarNode) and scalar_kind(node) == "boolean":
            return str(node.value).lower() == "true"
        self.note(node, f"{what} must be true or false, not {_shown(node)}", code="wrong-type")
        return None

    def integer(self, node: yaml.Node, what: str, *, least: int) -> int | None:
        if (
            isinstance(node, yaml.ScalarNode)
            and scalar_kind(node) == "integer"
            and _DECIMAL.fullmatch(node.value)
        ):
            if len(node.value) <= 18 and (number := int(node.value)) >= least:
                return number
            self.note(node, f"{what} must be at least {least} and have at most 18 digits")
            return None
        self.note(node, f"{what} must be a whole number, not {_shown(node)}", code="wrong-type")
        return None

    def amount(self, node: yaml.Node, what: str, parse: Callable[[str], _T]) -> _T | None:
        """A quantity: a plain number, or a string with a unit."""
        if isinstance(node, yaml.ScalarNode) and scalar_kind(node) in ("string", "integer", "number"):
            try:
                return parse(node.value)
            except ValueError as error:
                self.note(node, f"{what} must be {error}, not {node.value!r:.60}")
                return None
        self.note(node, f"{what} must be a quantity, not {_shown(node)}", code="wrong-type")
        return None

    def choice(self, node: yaml.Node, what: str, now: Iterable[str], later: Iterable[str] = ()) -> str | None:
        text = self.string(node, what)
        if text is None or text in now:
            return text
        if text in later:
            self.later(node, f"{what} {text!r}")
            return None
        self.note(node, f"{what} cannot be {text!r:.60}", hint=f"choose from: {', '.join([*now, *later])}")
        return None

    def data(self, node: yaml.Node, what: str) -> Any:
        """Any JSON-representable value, for plugins."""
        if isinstance(node, yaml.SequenceNode):
            return [self.data(item, what) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            fields = self.mapping(node, what) or {}
            return {key: self.data(value, f"{what}.{key}") for key, value in sorted(fields.items())}
        if not isinstance(node, yaml.ScalarNode):
            return None
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

    def _check_size(self, root: yaml.Node) -> None:
        """Aliases make a graph of a tree; what it expands to is bounded, and it must not contain itself."""
        count = 0
        pending: list[tuple[yaml.Node, int]] = [(root, 0)]
        while pending:
            node, depth = pending.pop()
            count += 1
            if count > _NODE_LIMIT or depth > _DEPTH_LIMIT:
                why = "aliases expand to more than" if count > _NODE_LIMIT else "more than"
                size = f"{_NODE_LIMIT} values" if count > _NODE_LIMIT else f"{_DEPTH_LIMIT} levels of nesting"
                self.note(node, f"{why} {size}", code="agentfile-syntax", hint="write it out, and smaller")
                self.finish()
            if node.tag not in _TAGS:
                self.note(node, f"the tag {node.tag!r:.60} has no meaning here", hint="remove it")
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    pending += [(key, depth + 1), (value, depth + 1)]
            elif isinstance(node, yaml.SequenceNode):
                pending += [(item, depth + 1) for item in node.value]


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if not isinstance(node, yaml.ScalarNode):
        return "something else"
    kind = scalar_kind(node)
    words = {
        "null": "nothing",
        "boolean": f"the boolean {node.value}",
        "integer": f"the number {node.value:.40}",
        "number": f"the number {node.value:.40}",
        "old boolean": f"{node.value}, which many YAML readers take for a boolean",
        "old sexagesimal": f"{node.value:.40}, which many YAML readers take for a number to the base of 60",
        "old integer": f"{node.value:.40}, which many YAML readers take for a number",
        "date": f"the date {node.value:.40}",
    }
    return words.get(kind, f"{node.value!r:.60}")
