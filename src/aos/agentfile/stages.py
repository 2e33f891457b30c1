"""Which stage needs which: unknown names, duplicates, cycles, and an order in which they can be built."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aos.agentfile.definition import Stage, Step
    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Fields, Walk

__all__ = ["Declared", "arrange"]

_MOST = 200
"""Stages of one Agentfile."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A stage as it was read, with its nodes for messages."""

    stage: Stage
    node: Node
    fields: Fields
    steps: list[tuple[Node, Step]]


def arrange(walk: Walk, declared: list[Declared]) -> tuple[Stage, ...]:
    """Stages in dependency order, otherwise as written; the package is the last one."""
    if len(declared) > _MOST:
        walk.note(declared[_MOST].node, f"more than {_MOST} stages", hint="steps may be as many as you like")
        return ()
    names: dict[str, Declared] = {}
    for one in declared:
        name = one.stage.name
        if name and name in names:
            walk.note(
                one.fields["name"],
                f"there are two stages {name!r}",
                code="duplicate-stage",
                hint="rename one",
            )
        names.setdefault(name, one)
    needs = {one.stage.name: _needs(walk, one, names) for one in declared}
    cycle = _cycle(needs)
    if cycle:
        first = names[cycle[0]]
        path = " -> ".join(name or "the package" for name in cycle)
        walk.note(first.node, f"stages need each other in a circle: {path}", code="stage-cycle")
        return ()
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for other in needs.get(name, ()):
                visit(other)
            order.append(name)

    for one in declared[:-1]:
        visit(one.stage.name)
    if declared:
        last = declared[-1].stage.name
        visit(last)
        # A stage that needs the package can only come after it, and then it is not part of the package.
        order = order[: order.index(last) + 1]
    return tuple(names[name].stage for name in order)


def _needs(walk: Walk, one: Declared, names: dict[str, Declared]) -> list[str]:
    """The stages that this one reads, in the order they are named; unknown ones are problems."""
    found: list[str] = []
    if one.stage.base in names and one.stage.base:
        found.append(one.stage.base)
    if "dependsOn" in one.fields:
        found += _known(walk, one.fields["dependsOn"], "dependsOn", list(one.stage.depends_on), names)
    for node, step in one.steps:
        if step.kind == "copy" and step.from_stage:
            found += _known(walk, node, "copy.from", [step.from_stage], names)
        elif step.kind == "run":
            sources = [mount.from_stage for mount in step.mounts if mount.from_stage]
            found += _known(walk, node, "run.mounts.from", sources, names)
    return list(dict.fromkeys(found))


def _known(walk: Walk, node: Node, what: str, wanted: list[str], names: dict[str, Declared]) -> list[str]:
    for name in wanted:
        if name in names and name:
            continue
        if what != "dependsOn" and any(mark in name for mark in "/:@"):
            continue  # a reference
        near = difflib.get_close_matches(name, [known for known in names if known], n=1)
        stages = ", ".join(known for known in names if known) or "none"
        hint = f"did you mean {near[0]!r}?" if near else f"stages are: {stages}"
        walk.note(
            node, f"{what} names a stage {name!r:.60} that does not exist", code="unknown-stage", hint=hint
        )
    return [name for name in wanted if name in names and name]


def _cycle(needs: dict[str, list[str]]) -> list[str]:
    """One cycle, from a stage back to itself; empty when there is none."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in needs.get(name, ()):
            if found := search(other, [*path, name]):
                return found
        done.add(name)
        return []

    for name in needs:
        if found := search(name, []):
            return found
    return []
