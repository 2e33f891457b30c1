"""Cache keys: a vertex's named components, each with a digest of its own, and the key that they make. Pure.

    operation     what the Agentfile says of the step
    environment   the variables that the step's command sees
    directory     what a relative path of the step is relative to
    files, …      what the step reads from outside the plan (`Vertex.inputs`), by name
    below         the result that the step stands on
    reads         the results whose files the step takes
    platform, epoch, compression, engine

Keys chain on results: a vertex that is executed again and gives the bytes it gave before changes no key after it.
Two vertices with different keys differ in a component, which is how a miss is explained (`explain.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.build.plan.graph import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.build.plan.graph import Plan, State, Vertex

__all__ = ["ENGINE", "Component", "cache_key", "components", "key_of"]

ENGINE: Mapping[str, int] = {"layer": 3, "copy": 2, "install": 2, "run": 1, "plugin": 1}
"""Raised whenever this version would make other bytes of the same inputs: of any step (`layer`: layer format,
clean-up), or of one kind of step."""

_CLEAR = frozenset({"tools", "arguments", "engine", "reads"})
"""Components whose parts are kept as they are, to be shown; of others (an environment's values) only digests."""
_LONGEST_CLEAR = 100


@dataclass(frozen=True, slots=True)
class Component:
    name: str
    digest: str
    parts: tuple[tuple[str, str], ...] = ()
    """What it consists of, by name, each shown or digested: enough to say which part has changed."""


def cache_key(vertex: Vertex, plan: Plan, states: Mapping[int, State]) -> str:
    """The address of the vertex's result; needs the states of what it stands on and reads."""
    return key_of(components(vertex, plan, states))


def key_of(parts: tuple[Component, ...]) -> str:
    return _digest([(part.name, part.digest) for part in parts])


def components(vertex: Vertex, plan: Plan, states: Mapping[int, State]) -> tuple[Component, ...]:
    """Everything that shapes the vertex's result, sorted by name."""
    return tuple(sorted(_components(vertex, plan, states), key=lambda part: part.name))


def _components(vertex: Vertex, plan: Plan, states: Mapping[int, State]) -> Iterator[Component]:
    below = EMPTY if vertex.below is None else states[vertex.below]
    yield _component("operation", vertex.operation)
    kind = vertex.step.kind if vertex.step else ""
    if kind in ("run", "install"):
        env = (*below.env, *vertex.config_env)
        parts = tuple((name, _part("environment", value)) for name, value in env)
        yield Component("environment", _digest(env), parts)
    if kind in ("run", "copy"):
        yield _component("directory", vertex.config_work_dir or below.work_dir)
    for name, value in vertex.inputs.items():
        yield _component(name, value)
    yield _component("below", below.chain)
    reads = [(EMPTY if read is None else states[read]).chain for read in vertex.reads]
    yield Component("reads", _digest(reads), tuple((str(at), chain) for at, chain in enumerate(reads)))
    yield _component("platform", plan.platform)
    yield _component("epoch", str(plan.epoch))
    yield _component("compression", plan.compression)
    yield _component("engine", {name: at for name, at in ENGINE.items() if name in ("layer", kind)})


def _component(name: str, value: object) -> Component:
    """A text that is an address, or short, is its own digest: what is equal is seen to be equal."""
    if isinstance(value, str):
        return Component(name, value if len(value) <= _LONGEST_CLEAR else _digest(value))
    parts = value.items() if isinstance(value, Mapping) else ()
    return Component(name, _digest(value), tuple((part, _part(name, what)) for part, what in sorted(parts)))


def _part(component: str, value: object) -> str:
    if component in _CLEAR and isinstance(value, str | int) and len(str(value)) <= _LONGEST_CLEAR:
        return str(value)
    return _digest(value)[:16]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
