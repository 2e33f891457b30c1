"""An explanation of a build, as lines for people and as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aos.cli._output import ago, clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.build.explain.why import Cause, Explanation, VertexExplanation

__all__ = ["explanation_facts", "explanation_lines"]

_MOST = 10
"""Causes told of one vertex; the rest is counted."""


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    build = explanation.build
    when = ago(max(0.0, time.time() - build.at))
    yield f"build {build.id} of {build.package}, {when}: {build.outcome} in {build.seconds:.1f} s"
    for one in explanation.vertices:
        yield clean(f"{_word(one):9} {one.vertex.label}{_price(one)}")
        for cause in one.causes[:_MOST]:
            yield clean(f"          {_cause(cause)}{_since(one)}")
        if len(one.causes) > _MOST:
            yield f"          and {len(one.causes) - _MOST} more"
        if one.same_result and one.vertex.status == "executed":
            yield "          it gave the same result as before: what stands on it is not executed for its sake"
    yield f"{explanation.saved:.1f} s saved, {explanation.cost:.1f} s of execution"


def explanation_facts(explanation: Explanation) -> dict[str, Any]:
    build = explanation.build
    return {
        "id": build.id,
        "at": build.at,
        "package": build.package,
        "outcome": build.outcome,
        "digest": build.digest or None,
        "seconds": build.seconds,
        "saved_seconds": round(explanation.saved, 3),
        "cost_seconds": round(explanation.cost, 3),
        "vertices": [
            {
                "label": one.vertex.label,
                "stage": one.vertex.stage,
                "step": one.vertex.created_by,
                "hit": one.hit,
                "status": one.vertex.status,
                "key": one.vertex.key or None,
                "seconds": one.vertex.seconds,
                "causes": [{"kind": c.kind, "name": c.name, "how": c.how} for c in one.causes],
                "since": {"id": one.since.id, "at": one.since.at} if one.since else None,
                "same_result": one.same_result,
            }
            for one in explanation.vertices
        ],
    }


def _word(one: VertexExplanation) -> str:
    return {"executed": "miss", "shared": "shared", "unreached": "-"}.get(
        one.vertex.status, one.vertex.status
    )


def _price(one: VertexExplanation) -> str:
    seconds = f"{one.vertex.seconds:.1f} s"
    match one.vertex.status:
        case "executed" | "failed":
            return f": {seconds}"
        case "hit":
            return f": saved {seconds}"
        case "shared":
            return f": another build executed it meanwhile, {seconds}"
    return ""


def _cause(cause: Cause) -> str:
    if cause.kind in ("forgotten", "failed", "forced", "new"):
        return cause.how
    words = {
        "operation": "the Agentfile",
        "environment": "the environment variable",
        "directory": "the working directory",
        "requirement": "the requirements",
        "argument": "the argument",
        "plugin": "the plugin's input",
        "engine": "aos' own way of making",
        "epoch": "SOURCE_DATE_EPOCH",
        "result": "the earlier step",
        "base": "the base",
    }
    return " ".join(filter(None, [words.get(cause.kind, cause.kind), cause.name])) + f": {cause.how}"


def _since(one: VertexExplanation) -> str:
    return f" (since build {one.since.id})" if one.since else ""
