"""A plan for people, programs and Graphviz, and what is known of it before anything is executed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aos.build.plan.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.build.plan.graph import Plan, Vertex
    from aos.build.plan.keys import Component
    from aos.build.solve.results import Results

__all__ = ["Form", "Known", "Outline", "outline_of", "print_plan"]

Form = Literal["text", "json", "dot"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a vertex."""

    key: str = ""
    """"" while a vertex that it stands on has no result: keys chain on results."""
    components: tuple[Component, ...] = ()
    state: Literal["base", "cached", "to execute", "open"] = "open"
    """`open`: it depends on what earlier vertices give."""
    seconds: float = 0
    """What it cost when it was executed."""


@dataclass(frozen=True, slots=True)
class Outline:
    package: str
    plan: Plan
    known: tuple[Known, ...]
    """One for each vertex."""


def outline_of(package: str, results: Results) -> Outline:
    """The plan, and what is known of it now."""
    known = []
    for vertex in results.plan.vertices:
        outcome, parts = results.outcomes.get(vertex.index), results.components(vertex)
        if vertex.step is None:
            known.append(Known(state="base"))
        elif not parts:
            known.append(Known())
        elif outcome is None:
            known.append(Known(key_of(parts), parts, "to execute"))
        else:
            known.append(Known(key_of(parts), parts, "cached", outcome.seconds))
    return Outline(package, results.plan, tuple(known))


def print_plan(outline: Outline, form: Form) -> str:
    """The same outline gives the same text."""
    if form == "json":
        return _json(outline)
    return "\n".join(_dot(outline) if form == "dot" else _text(outline))


def _text(outline: Outline) -> Iterator[str]:
    plan = outline.plan
    yield f"{outline.package} for {plan.platform}, {len(plan.vertices)} vertices"
    for vertex, known in zip(plan.vertices, outline.known, strict=True):
        after = ", ".join(f"#{parent + 1}" for parent in vertex.parents)
        yield f"#{vertex.index + 1} {vertex.label}"
        facts = [known.state, f"key {known.key[:12]}" if known.key else "", f"after {after}" if after else ""]
        facts.append(f"made in {known.seconds:.1f} s" if known.state == "cached" else "")
        yield "    " + ", ".join(filter(None, facts))


def _json(outline: Outline) -> str:
    plan = outline.plan
    vertices = [
        {
            "id": vertex.index,
            "label": vertex.label,
            "stage": vertex.stage,
            "operation": dict(vertex.operation),
            "edges": [{"kind": kind, "from": parent} for kind, parent in _edges(vertex)],
            "state": known.state,
            "key": known.key or None,
            "components": {part.name: part.digest for part in known.components},
        }
        for vertex, known in zip(plan.vertices, outline.known, strict=True)
    ]
    raw = {
        "package": outline.package,
        "platform": plan.platform,
        "epoch": plan.epoch,
        "final": plan.final,
        "vertices": vertices,
    }
    return json.dumps(raw, indent=2)


def _dot(outline: Outline) -> Iterator[str]:
    """https://graphviz.org/doc/info/lang.html"""
    styles = {"base": "filled", "cached": "filled", "to execute": "bold", "open": "dashed"}
    yield "digraph plan {"
    yield "  rankdir=LR; node [shape=box];"
    for vertex, known in zip(outline.plan.vertices, outline.known, strict=True):
        text = json.dumps(f"{vertex.label}\n{known.state}", ensure_ascii=False)
        yield f"  v{vertex.index} [label={text}, style={styles[known.state]}];"
    for vertex in outline.plan.vertices:
        for kind, parent in _edges(vertex):
            style = {"below": "solid", "reads": "dashed", "after": "dotted"}[kind]
            yield f"  v{parent} -> v{vertex.index} [style={style}];"
    yield "}"


def _edges(vertex: Vertex) -> Iterator[tuple[Literal["below", "reads", "after"], int]]:
    if vertex.below is not None:
        yield "below", vertex.below
    for parent in vertex.reads:
        if parent is not None:
            yield "reads", parent
    for parent in vertex.after:
        yield "after", parent
