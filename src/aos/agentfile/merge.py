"""What a child says over what its parent says: the rules of `extends`, on nodes.

scalars and lists    the child's take the place of the parent's
mappings             merged by key; `null` takes an inherited key out
steps                `from` begins a stage anew; without it a stage goes on where the parent's of its name ended
stages               merged by name, by that rule
entrypoint           a `command` of the child takes the parent's `args` with it
metadata             `name` and `version` are the child's own
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode, scalar_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Fields, Walk

__all__ = ["merge"]

_Pairs = list[tuple["Node", "Node"]]


def merge(walk: Walk, parent: Fields, child: Fields) -> Fields:
    """The fields of the one file that both would be. What cannot be is noted in `walk`."""
    apart = ("extends", "from", "steps", "stages", "metadata", "entrypoint")
    inherited = {name: node for name, node in parent.items() if name not in apart}
    own = {name: node for name, node in child.items() if name not in apart[:-2]}
    if "metadata" in parent:
        inherited["metadata"] = _without(parent["metadata"], ("name", "version"))
    if "entrypoint" in parent:
        replaced = ("args",) if "command" in _names(child.get("entrypoint")) else ()
        inherited["entrypoint"] = _without(parent["entrypoint"], replaced)
    merged = dict(inherited)
    for name, node in own.items():
        value = _over(walk, inherited[name], node, (name,)) if name in inherited else node
        if value is None:
            del merged[name]
        else:
            merged[name] = value
    return {**merged, **_stages(parent, child), **_package(parent, child)}


def _over(walk: Walk, parent: Node, child: Node, path: tuple[str, ...]) -> Node | None:
    """One value over another; None: it is taken out."""
    if isinstance(parent, MappingNode) and isinstance(child, MappingNode):
        return _over_by_key(walk, parent, child, path)
    removed = isinstance(child, ScalarNode) and scalar_kind(child) == "null" and path[0] != "args"
    if removed and parent.document.is_package and path[0] in ("config", "entrypoint", "metadata"):
        message = f"{'.'.join(path)} is in the image of {parent.document.file}: null cannot take it out"
        walk.note(child, message, code="extends-invalid", hint="give it another value")
    return None if removed else child


def _over_by_key(walk: Walk, parent: MappingNode, child: MappingNode, path: tuple[str, ...]) -> MappingNode:
    """The parent's keys in their order, then those that only the child has, or has twice."""
    inherited = {_text(key) for key, _ in parent.value}
    changed: dict[str, tuple[Node, Node]] = {}
    added: _Pairs = []
    for pair in child.value:
        name = _text(pair[0])
        if name in inherited and name not in changed:
            changed[name] = pair
        else:
            added.append(pair)
    pairs: _Pairs = []
    for key, value in parent.value:
        name = _text(key)
        own_key, own = changed.get(name, (key, value))
        merged = _over(walk, value, own, (*path, name)) if name in changed else own
        if merged is not None:
            pairs.append((own_key, merged))
    return MappingNode(child.document, child.line, child.column, pairs + added)


def _package(parent: Fields, child: Fields) -> Fields:
    """The package's own stage: `from` and `steps` at the top."""
    if "from" in child:
        return {name: child[name] for name in ("from", "steps") if name in child}
    continued: Fields = {name: parent[name] for name in ("from", "steps") if name in parent}
    if "steps" in child:
        continued["steps"] = _joined(parent.get("steps"), child["steps"])
        stages = parent.get("stages")
        if "from" not in parent and isinstance(stages, SequenceNode) and stages.value:
            # The parent's last stage is its package, and has a name to go on from.
            name = _field(stages.value[-1], "name")
            continued |= {} if name is None else {"from": name}
    return continued


def _stages(parent: Fields, child: Fields) -> Fields:
    theirs, ours = parent.get("stages"), child.get("stages")
    if not isinstance(theirs, SequenceNode) or not isinstance(ours, SequenceNode):
        one = theirs if ours is None else ours
        return {} if one is None else {"stages": one}
    items = list(theirs.value)
    places = {_text(_field(item, "name")): place for place, item in enumerate(items)}
    for item in ours.value:
        # Popped, so that a name that is there twice stays twice, which the reader tells.
        place = places.pop(_text(_field(item, "name")), None)
        if place is None:
            items.append(item)
        else:
            items[place] = _stage(items[place], item)
    return {"stages": SequenceNode(ours.document, ours.line, ours.column, items)}


def _stage(parent: Node, child: Node) -> Node:
    """A stage of the child over the parent's of its name."""
    if not isinstance(parent, MappingNode) or not isinstance(child, MappingNode) or "from" in _names(child):
        return child
    own = _names(child)
    pairs = [pair for pair in parent.value if _text(pair[0]) not in own]
    for key, value in child.value:
        joins = _text(key) == "steps"
        pairs.append((key, _joined(_field(parent, "steps"), value) if joins else value))
    return MappingNode(child.document, child.line, child.column, pairs)


def _joined(before: Node | None, after: Node) -> Node:
    if isinstance(before, SequenceNode) and isinstance(after, SequenceNode):
        return SequenceNode(after.document, after.line, after.column, before.value + after.value)
    return after


def _without(node: Node, names: Iterable[str]) -> Node:
    if not isinstance(node, MappingNode):
        return node
    pairs = [pair for pair in node.value if _text(pair[0]) not in names]
    return MappingNode(node.document, node.line, node.column, pairs)


def _names(node: Node | None) -> set[str]:
    return {_text(key) for key, _ in node.value} if isinstance(node, MappingNode) else set()


def _field(node: Node, name: str) -> Node | None:
    pairs = node.value if isinstance(node, MappingNode) else ()
    return next((value for key, value in pairs if _text(key) == name), None)


def _text(node: Node | None) -> str:
    return node.value if isinstance(node, ScalarNode) else ""
