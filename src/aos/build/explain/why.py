"""Why each vertex of a build was a hit or a miss: its key's components beside the most similar earlier vertex's. Pure.

A miss has causes: what differs from the vertex that resembles it most among the builds that are kept. Nothing differs
when the result was known and is not any more (pruned, damaged, not wanted).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from aos.build.explain.records import BuildRecord, VertexRecord
    from aos.build.plan.keys import Component

__all__ = ["Cause", "Explanation", "VertexExplanation", "explain"]

Kind = Literal[
    "file",
    "requirement",
    "argument",
    "base",
    "environment",
    "tool",
    "operation",
    "directory",
    "plugin",
    "result",
    "platform",
    "epoch",
    "engine",
    "forgotten",
    "failed",
    "forced",
    "new",
    "other",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is not as it was."""

    kind: Kind
    name: str
    """Of the file, variable, argument, base, step…; "" where the kind says it all."""
    how: str
    """`changed`, `added`, `removed`, or `0.9.1 is now 0.9.2`."""


@dataclass(frozen=True, slots=True)
class VertexExplanation:
    vertex: VertexRecord
    causes: tuple[Cause, ...] = ()
    """Why it was no hit; what differs of a base."""
    since: BuildRecord | None = None
    """The earlier build that `causes` compares with."""
    same_result: bool = False
    """It gave what the earlier one gave, so that nothing after it had to be executed again for its sake."""

    @property
    def hit(self) -> bool:
        return self.vertex.status in ("hit", "base")


@dataclass(frozen=True, slots=True)
class Explanation:
    build: BuildRecord
    vertices: tuple[VertexExplanation, ...]

    @property
    def saved(self) -> float:
        """Seconds that hits would have cost."""
        return sum(one.vertex.seconds for one in self.vertices if one.vertex.status in ("hit", "shared"))

    @property
    def cost(self) -> float:
        """Seconds of execution, of vertices at the same time as well."""
        return sum(one.vertex.seconds for one in self.vertices if one.vertex.status in ("executed", "failed"))


def explain(
    build: BuildRecord,
    earlier: Sequence[BuildRecord],
    files: Callable[[str], Mapping[str, str] | None],
) -> Explanation:
    """`earlier`: other builds, the newest last. `files`: what the copy whose files have a digest took, by path."""
    known = [
        (record, vertex) for record in reversed(earlier) for vertex in record.vertices if vertex.components
    ]
    return Explanation(build, tuple(_explain(vertex, build, known, files) for vertex in build.vertices))


def _explain(
    vertex: VertexRecord,
    build: BuildRecord,
    known: Sequence[tuple[BuildRecord, VertexRecord]],
    files: Callable[[str], Mapping[str, str] | None],
) -> VertexExplanation:
    if vertex.status in ("hit", "unreached"):
        return VertexExplanation(vertex)
    if vertex.forced:
        return VertexExplanation(vertex, (Cause("forced", "", "was to be executed whatever is cached"),))
    same = [(record, one) for record, one in known if one.kind == vertex.kind]
    same = [(record, one) for record, one in same if _comparable(vertex, build, one, record)]
    if vertex.kind == "base":
        same = [(record, one) for record, one in same if one.created_by == vertex.created_by]
    if not same:
        new = Cause("new", "", "no earlier build had such a step")
        return VertexExplanation(vertex, () if vertex.kind == "base" else (new,))
    equal = next(((record, one) for record, one in same if one.key == vertex.key and one.result), None)
    failed = next(((record, one) for record, one in same if one.key == vertex.key), None)
    since, other = equal or failed or max(same, key=lambda found: _likeness(vertex, build, *found))
    causes = tuple(_differences(vertex, build, other, since, files))
    if not causes and vertex.kind != "base":
        if equal:
            causes = (Cause("forgotten", "", "its result was removed from the cache, or was damaged"),)
        else:
            causes = (Cause("failed", "", "it has not succeeded yet"),)
    return VertexExplanation(vertex, causes, since, vertex.result != "" and vertex.result == other.result)


def _comparable(vertex: VertexRecord, build: BuildRecord, other: VertexRecord, since: BuildRecord) -> bool:
    """A step of another package tells something only when it is this one: what else they do has nothing in common."""
    return since.package == build.package or other.created_by == vertex.created_by or other.key == vertex.key


def _likeness(
    vertex: VertexRecord, build: BuildRecord, since: BuildRecord, other: VertexRecord
) -> tuple[object, ...]:
    """Builds of the same package first, then what has most in common; of equals, `max` takes the newest."""
    theirs = {part.name: part.digest for part in other.components}
    common = sum(theirs.get(part.name) == part.digest for part in vertex.components)
    return (
        since.package == build.package,
        common + (other.created_by == vertex.created_by),
        other.stage == vertex.stage,
        -abs(other.position - vertex.position),
    )


def _differences(
    vertex: VertexRecord,
    build: BuildRecord,
    other: VertexRecord,
    since: BuildRecord,
    files: Callable[[str], Mapping[str, str] | None],
) -> Iterator[Cause]:
    now = {part.name: part for part in vertex.components}
    before = {part.name: part for part in other.components}
    for name in sorted(now.keys() | before.keys()):
        new, old = now.get(name), before.get(name)
        if new and old and new.digest == old.digest:
            continue
        match name:
            case "files":
                yield from _files(new, old, files)
            case "below":
                yield _result(build, vertex.below, since, other.below)
            case "reads":
                for at, parent in enumerate(vertex.reads):
                    theirs = other.reads[at] if at < len(other.reads) else None
                    if _part(new, str(at)) != _part(old, str(at)):
                        yield _result(build, parent, since, theirs)
            case "operation":
                if not _only_arguments(vertex, other, now.get("arguments"), before.get("arguments")):
                    yield Cause("operation", "", _operation(vertex, other))
            case "base" | "directory" | "platform" | "epoch":
                yield Cause(name, "", _changed(old.digest if old else None, new.digest if new else None))
            case "arguments":
                yield from _parts("argument", new, old)
            case "tools":
                yield from _parts("tool", new, old)
            case "requirements":
                yield from _parts("requirement", new, old)
            case "environment" | "plugin" | "engine":
                yield from _parts(name, new, old)
            case _:
                yield Cause("other", name, "changed")


def _files(
    new: Component | None, old: Component | None, files: Callable[[str], Mapping[str, str] | None]
) -> Iterator[Cause]:
    now = files(new.digest) if new else {}
    before = files(old.digest) if old else {}
    if now is None or before is None:
        yield Cause("file", "", "changed; which is not known any more")
        return
    changes = [
        Cause("file", path, "added" if path not in before else "removed" if path not in now else "changed")
        for path in sorted(now.keys() | before.keys())
        if now.get(path) != before.get(path)
    ]
    yield from changes or [Cause("file", "", "the same files are taken in another way")]


def _parts(kind: Kind, new: Component | None, old: Component | None) -> Iterator[Cause]:
    now, before = dict(new.parts if new else ()), dict(old.parts if old else ())
    names = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    for name in names:
        values = before.get(name), now.get(name)
        shown = kind in ("tool", "argument", "engine") or None in values
        yield Cause(kind, name, _changed(*values) if shown else "changed")
    if not names:
        yield Cause(kind, "", "in another order")


def _changed(old: str | None, new: str | None) -> str:
    if old is None or new is None:
        return "added" if old is None else "removed"
    return f"{old or 'none'} is now {new or 'none'}"


def _part(component: Component | None, name: str) -> str | None:
    return dict(component.parts).get(name) if component else None


def _only_arguments(
    vertex: VertexRecord, other: VertexRecord, new: Component | None, old: Component | None
) -> bool:
    """Whether the step differs from the other one by the values of its arguments alone."""
    if new is None or old is None or new.digest == old.digest:
        return False
    text, values = other.created_by, dict(new.parts)
    for name, value in old.parts:
        text = text.replace(value, values.get(name, value))
    return text == vertex.created_by


def _operation(vertex: VertexRecord, other: VertexRecord) -> str:
    if vertex.created_by != other.created_by:
        return f"the step was `{other.created_by}`"
    now = {part.name: part for part in vertex.components}["operation"]
    before = {part.name: part for part in other.components}.get("operation")
    names = dict(now.parts).keys() | dict(before.parts if before else ()).keys()
    changed = sorted(name for name in names if _part(now, name) != _part(before, name))
    return f"another {' and '.join(changed)}" if changed else "changed"


def _result(build: BuildRecord, parent: int | None, since: BuildRecord, before: int | None) -> Cause:
    """The vertex whose result is another one; a base is told by its name."""
    if parent is None:
        return Cause(
            "base", "scratch", f"stood on {since.vertices[before].created_by}" if before is not None else ""
        )
    one = build.vertices[parent]
    if one.kind == "base":
        name = one.created_by.removeprefix("from ")
        old = since.vertices[before] if before is not None else None
        if old is None or old.created_by != one.created_by:
            return Cause("base", name, f"was {old.label if old else 'from scratch'}")
        return Cause("base", name, _changed(_manifest(old), _manifest(one)))
    return Cause("result", one.label, "gave another result")


def _manifest(base: VertexRecord) -> str:
    digest = next((part.digest for part in base.components if part.name == "base"), "")
    return digest[:19]
