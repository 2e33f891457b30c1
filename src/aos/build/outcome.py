"""How each vertex of a build came by its state, and the record that is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aos.build.keys import Component, key_of
from aos.build.records import BuildRecord, VertexRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.build.lookup import Lookup
    from aos.build.plan import Plan, State, Vertex
    from aos.build.records import Status

__all__ = ["Outcome", "record_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    status: Status
    seconds: float
    """What its execution cost, now or in an earlier build."""


def record_of(
    plan: Plan,
    states: Mapping[int, State],
    outcomes: Mapping[int, Outcome],
    lookup: Lookup,
    *,
    id: str,
    at: float,
    package: str,
    outcome: Literal["built", "failed", "stopped"],
    seconds: float,
    digest: str,
) -> BuildRecord:
    """The record of a build that has ended, with or without a package."""
    vertices = tuple(_vertex(vertex, states, outcomes, lookup) for vertex in plan.vertices)
    return BuildRecord(id, at, package, outcome, round(seconds, 3), digest, vertices)


def _vertex(
    vertex: Vertex, states: Mapping[int, State], outcomes: Mapping[int, Outcome], lookup: Lookup
) -> VertexRecord:
    state, outcome = states.get(vertex.index), outcomes.get(vertex.index, Outcome("unreached", 0))
    components: tuple[Component, ...] = ()
    if vertex.step is None:
        components = (Component("base", state.base or ""),) if state else ()
    elif all(parent in states for parent in vertex.parents):
        components = lookup.components(vertex)
    return VertexRecord(
        label=vertex.label,
        stage=vertex.stage,
        position=vertex.position,
        created_by=vertex.created_by,
        kind=vertex.step.kind if vertex.step else "base",
        status=outcome.status,
        key=key_of(components) if components else "",
        components=components,
        result=(state.chain or "empty") if state else "",
        seconds=round(outcome.seconds, 3),
        below=vertex.below,
        reads=vertex.reads,
        forced=vertex.step is not None and lookup.forced(vertex),
    )
