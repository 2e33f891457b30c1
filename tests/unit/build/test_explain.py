"""Explanations: of records alone, every kind of cause, and which earlier vertex is compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.build.explain.records import BuildRecord, VertexRecord
from aos.build.explain.why import Cause, VertexExplanation, explain
from aos.build.plan.keys import Component, key_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.build.explain.records import Status

BASE = VertexRecord(
    "from b:1", "", 0, "from b:1", "base", "base", "k", (Component("base", "sha256:1"),), "r0", 0, None, ()
)


def _vertex(status: Status = "executed", **components: object) -> VertexRecord:
    """A step on BASE; a component is its digest, or its parts."""
    return _with("", None, status, components)


def _with(
    name: str, value: object, status: Status = "executed", components: Mapping[str, object] | None = None
) -> VertexRecord:
    found = {"operation": "make", "below": "r0", **(components or {})}
    if name:
        found[name] = value
    parts = tuple(
        Component(name, repr(value), tuple(value.items()) if isinstance(value, dict) else ())
        for name, value in sorted(found.items())
    )
    return VertexRecord(
        "[1/1] run make", "", 0, "run make", "run", status, key_of(parts), parts, "r1", 1.5, 0, ()
    )


def _build(id: str, *vertices: VertexRecord, package: str = "it") -> BuildRecord:
    return BuildRecord(id, float(int(id, 16)), package, "built", 2.0, "", (BASE, *vertices))


def _files(digest: str) -> Mapping[str, str] | None:
    return {"'one'": {"a": "1", "b": "1"}, "'two'": {"a": "2", "c": "1"}, "'same'": {"a": "1", "b": "1"}}.get(
        digest
    )


def _explained(now: VertexRecord, *before: VertexRecord) -> VertexExplanation:
    earlier = [_build(f"{number + 1:012x}", one) for number, one in enumerate(before)]
    return explain(_build("f" * 12, now), earlier, _files).vertices[1]


def _causes(now: VertexRecord, *before: VertexRecord) -> list[tuple[str, str, str]]:
    return [(cause.kind, cause.name, cause.how) for cause in _explained(now, *before).causes]


@pytest.mark.parametrize(
    ("name", "before", "now", "causes"),
    [
        ("environment", {"A": "1"}, {"A": "2"}, [("environment", "A", "changed")]),
        ("environment", {}, {"A": "2"}, [("environment", "A", "added")]),
        ("environment", {"A": "1"}, {}, [("environment", "A", "removed")]),
        ("tools", {"uv": "1"}, {"uv": "2"}, [("tool", "uv", "1 is now 2")]),
        ("tools", {"uv": "1"}, {"uv": ""}, [("tool", "uv", "1 is now none")]),
        ("arguments", {"V": "1"}, {"V": "2"}, [("argument", "V", "1 is now 2")]),
        ("requirements", {"r.txt": "1"}, {"r.txt": "2"}, [("requirement", "r.txt", "changed")]),
        ("plugin", {"suite": "1"}, {"suite": "2"}, [("plugin", "suite", "changed")]),
        ("engine", {"layer": "1"}, {"layer": "2"}, [("engine", "layer", "1 is now 2")]),
        ("platform", "linux/amd64", "linux/arm64", [("platform", "", "'linux/amd64' is now 'linux/arm64'")]),
        ("epoch", "0", "1", [("epoch", "", "'0' is now '1'")]),
        ("directory", "/a", "/b", [("directory", "", "'/a' is now '/b'")]),
        ("compression", "gzip", "zstd", [("other", "compression", "changed")]),
        (
            "files",
            "one",
            "two",
            [("file", "a", "changed"), ("file", "b", "removed"), ("file", "c", "added")],
        ),
        ("files", "one", "same", [("file", "", "the same files are taken in another way")]),
        ("files", "gone", "two", [("file", "", "changed; which is not known any more")]),
    ],
)
def test_what_differs_is_the_cause(
    name: str, before: object, now: object, causes: list[tuple[str, str, str]]
) -> None:
    assert _causes(_with(name, now), _with(name, before)) == causes


def test_a_step_is_told_with_what_it_was_and_else_with_what_differs() -> None:
    other = replace(_vertex(operation={"args": "1"}), created_by="run all")
    assert _causes(_vertex(operation={"args": "2"}), other) == [("operation", "", "the step was `run all`")]
    assert _causes(_vertex(operation={"user": "1"}), _vertex(operation={"user": "2", "env": "1"})) == [
        ("operation", "", "another env and user")
    ]


def test_an_argument_in_a_step_is_told_once() -> None:
    before = replace(_vertex(operation="1", arguments={"V": "1.0"}), created_by="run get 1.0")
    now = replace(_vertex(operation="2", arguments={"V": "2.0"}), created_by="run get 2.0")
    assert _causes(now, before) == [("argument", "V", "1.0 is now 2.0")]
    edited = replace(now, created_by="run fetch 2.0")
    assert [kind for kind, _, _ in _causes(edited, before)] == ["argument", "operation"]


def test_results_are_told_by_the_vertex_that_gave_them() -> None:
    earlier = BuildRecord("1" * 12, 1, "it", "built", 1, "", (BASE, _vertex(below="r0")))
    other = replace(BASE, components=(Component("base", "sha256:2"),), result="r2")
    build = BuildRecord("2" * 12, 2, "it", "built", 1, "", (other, _vertex(below="r2")))
    base, step = explain(build, [earlier], _files).vertices
    assert base.causes == (Cause("base", "", "sha256:1 is now sha256:2"),)
    assert step.causes == (Cause("base", "b:1", "sha256:1 is now sha256:2"),)


def test_the_same_key_was_forgotten_or_has_failed_or_was_forced() -> None:
    one = _vertex()
    assert [kind for kind, _, _ in _causes(one, one)] == ["forgotten"]
    assert [kind for kind, _, _ in _causes(one, replace(one, status="failed", result=""))] == ["failed"]
    assert [kind for kind, _, _ in _causes(replace(one, forced=True), one)] == ["forced"]
    assert [kind for kind, _, _ in _causes(one)] == ["new"]
    assert _causes(replace(one, status="hit"), one) == []


def test_the_most_similar_vertex_is_compared_with_and_of_equals_the_newest() -> None:
    now = _vertex(environment={"A": "1"}, epoch="2")
    far = _vertex(environment={"A": "2"}, epoch="1", platform="x")
    near = _vertex(environment={"A": "1"}, epoch="1")
    found = _explained(now, near, near, far)
    assert [cause.kind for cause in found.causes] == ["epoch"]
    assert found.since is not None
    assert found.since.id == f"{2:012x}"
    foreign = [_build("1" * 12, near, package="other"), _build("2" * 12, far)]
    since = explain(_build("f" * 12, now), foreign, _files).vertices[1].since
    assert since is not None
    assert since.package == "it", "a build of the same package says more than a nearer one of another"
    assert [kind for kind, _, _ in _causes(now, replace(near, kind="copy"))] == ["new"]


def test_what_another_package_does_explains_only_the_same_step() -> None:
    now = _with("environment", {"A": "2"})
    other = replace(_with("environment", {"A": "1"}), created_by="run something else")
    same = _with("environment", {"A": "1"})

    def told(*before: VertexRecord) -> list[str]:
        earlier = [_build("1" * 12, *before, package="another")]
        return [cause.kind for cause in explain(_build("f" * 12, now), earlier, _files).vertices[1].causes]

    assert told(other) == ["new"]
    assert told(other, same) == ["environment"]


def test_costs_and_savings_are_summed() -> None:
    build = _build("1" * 12, _vertex(), _vertex("hit"), _vertex("shared"), _vertex("failed"))
    found = explain(build, [], _files)
    assert (found.saved, found.cost) == (3.0, 3.0)
    assert [one.hit for one in found.vertices] == [True, False, True, False, False]
