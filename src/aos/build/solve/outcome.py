"""How each vertex of a build came by its state, and the record that is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aos.build.explain.records import BuildRecord, VertexRecord
from aos.build.plan.keys import Component, key_of

if TYPE_CHECKING:
    from aos.build.explain.records import Status
    from aos.build.plan.graph import Vertex
    from aos.build.solve.results import Results

__all__ = ["Outcome", "record_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    status: Status
    seconds: float
    """What its execution cost, now or in an earlier build."""


def record_of(
    results: Results,
    *,
    id: str,
    at: float,
    package: str,
    outcome: Literal["built", "failed", "stopped"],
    seconds: float,
    digest: str,
) -> BuildRecord:
    """The record of a build that has ended, with or without a package."""
    vertices = tuple(_vertex(vertex, results) for vertex in results.plan.vertices)
    return BuildRecord(id, at, package, outcome, round(seconds, 3), digest, vertices)


def _vertex(vertex: Vertex, results: Results) -> VertexRecord:
    state = results.states.get(vertex.index)
    outcome = results.outcomes.get(vertex.index, Outcome("unreached", 0))
    if vertex.step is not None:
        components = results.components(vertex)
    else:
        components = (Component("base", state.base or ""),) if state else ()
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
        forced=vertex.step is not None and results.lookup.forced(vertex),
    )
