"""From a file to what it says with its parents and its arguments: the one way in to the language."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aos.agentfile.nodes import MappingNode, ScalarNode
from aos.agentfile.read import read_definition
from aos.agentfile.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aos.agentfile.definition import Definition
    from aos.agentfile.document import Document
    from aos.agentfile.extends import Parents
    from aos.agentfile.nodes import Node

__all__ = ["Resolved", "resolve"]


@dataclass(frozen=True, slots=True)
class Resolved:
    definition: Definition
    file: str
    root: Node
    """The Agentfile without `extends` and `args`; each node knows where it came from."""

    def to_yaml(self) -> str:
        """An Agentfile that says the same, each value with its origin in a comment."""
        from aos.agentfile.show import as_yaml

        return as_yaml(self.root)

    def to_json(self) -> dict[str, Any]:
        """`agentfile`, and `origins` by JSON Pointer (RFC 6901)."""
        from aos.agentfile.show import as_json

        return as_json(self.root)


def resolve(
    read: Callable[[], Document], arguments: Mapping[str, str | None], parents: Parents | None
) -> Resolved:
    """Raise AgentfileError with every problem there is, and what `read` raises."""
    with _uncollected():
        document, walk = read(), Walk()
        root, has_marks = document.root, document.has_marks
        keys = [key for key, _ in root.value] if isinstance(root, MappingNode) else []
        fields = {key.value for key in keys if isinstance(key, ScalarNode)}
        if "extends" in fields:
            from aos.agentfile.extends import resolve_extends

            root = resolve_extends(walk, document, parents)
        if has_marks or arguments or fields & {"extends", "args"}:
            from aos.agentfile.arguments import fill_in

            root = fill_in(walk, root, arguments) if isinstance(root, MappingNode) else root
            walk.finish()  # what is wrong with a value that is not known is no news
        return Resolved(read_definition(walk, root), document.file, root)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing that is read is garbage, and looking for some triples the time for 10,000 steps."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
