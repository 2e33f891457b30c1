"""Whatever is in the files, the reader answers with a definition or with AgentfileError; and what it resolves to
reads back as the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aos.agentfile import AgentfileError, json_schema, loads
from aos.agentfile.definition import Definition
from aos.agentfile.document import Document
from aos.agentfile.extends import Package
from aos.agentfile.resolve import Resolved, resolve

PACKAGE = loads(
    b"apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: p, version: 1.0.0, labels: {a: '${'}}\n"
    b"from: scratch\nconfig: {env: {A: x}}\nentrypoint: {command: [a], args: [b]}\nresources: {cpu: 2}\n"
).to_json()

_LIKELY = [
    "x",
    "",
    "tools",
    "scratch",
    "1.0.0",
    "no",
    "1:30",
    "~",
    "./parent",
    "p:1",
    "../x",
    "/",
    "/a/b",
    "0755",
]
_NASTY = [
    "${{ args.A }}",
    "$${{ args.A }}",
    "${{",
    "a\nb\n",
    "a\n\n",
    " a",
    "a: b",
    "#",
    "-",
    "\u2028",
    "\x7f",
    "\t",
]
_TEXTS = st.sampled_from([*_LIKELY, *_NASTY]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def _names(schema: object) -> list[str]:
    """Every field of the language, wherever it stands."""
    if isinstance(schema, list):
        return [name for item in schema for name in _names(item)]
    if not isinstance(schema, dict):
        return []
    inner = [name for value in schema.values() for name in _names(value)]
    return [*(schema["properties"] if isinstance(schema.get("properties"), dict) else ()), *inner]


_WORDS = [*sorted(set(_names(json_schema()))), "A", "B"]
_KEYS = st.sampled_from(_WORDS) | _TEXTS
_SCALARS = _TEXTS | st.none() | st.booleans() | st.integers(-5, 9000) | st.floats()
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.dictionaries(st.sampled_from(_WORDS), _VALUES, max_size=4)
_MOUNTS = st.dictionaries(st.sampled_from(["target", "from", "source", "id", "env", "mode"]), _TEXTS)
_RUN = st.fixed_dictionaries(
    {"command": st.just("x")},
    optional={"cache": st.lists(_MOUNTS), "secrets": st.lists(_MOUNTS | _TEXTS), "mounts": st.lists(_MOUNTS)},
)
_STEPS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"run": _TEXTS | st.lists(_TEXTS, max_size=3) | _RUN}),
        st.fixed_dictionaries({"copy": st.fixed_dictionaries({"src": _TEXTS, "dest": _TEXTS})}),
        st.fixed_dictionaries({"plugin": st.fixed_dictionaries({"name": st.just("git"), "with": _FIELDS})}),
        _FIELDS,
    ),
    max_size=3,
)
_STAGES = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["tools", "b"])}, optional={"from": _TEXTS, "steps": _STEPS}
    ),
    max_size=3,
)
_FILES = st.builds(
    lambda good, any_: {**any_, **good},
    st.fixed_dictionaries(
        {
            "apiVersion": st.just("aos.io/v1"),
            "kind": st.just("AgentPackage"),
            "metadata": st.just({"name": "a", "version": "1.0.0"}),
        },
        optional={
            "extends": st.sampled_from(["./parent", "p:1"]),
            "args": st.just({"A": "x", "B": None}),
            "from": _TEXTS,
            "steps": _STEPS,
            "stages": _STAGES,
            "config": st.fixed_dictionaries(
                {"env": st.dictionaries(st.sampled_from("AB"), _TEXTS | st.none())}
            ),
        },
    ),
    st.just({}) | _FIELDS,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read(data: bytes, place: Path) -> Resolved | None:
    """None where it was refused, each problem with a place."""
    try:
        return resolve(
            lambda: Document.read(str(place / "Agentfile"), data),
            {"B": "given: [no"},
            lambda _: Package("p:1@sha256:" + "a" * 64, PACKAGE),
        )
    except AgentfileError as refused:
        assert all(problem.line >= 1 and problem.column >= 1 for problem in refused.problems)
        assert refused.message
        return None


def check(resolved: Resolved | None) -> None:
    if resolved is None:
        return
    definition = resolved.definition
    raw = json.loads(json.dumps(definition.to_json()))
    assert Definition.from_json(raw).to_json() == definition.to_json()
    assert loads(resolved.to_yaml().encode()).to_json() == definition.to_json(), resolved.to_yaml()
    shown: Any = resolved.to_json()["agentfile"]
    assert loads(json.dumps(shown).encode()).to_json() == definition.to_json(), shown


@settings(max_examples=300)
@given(_FILES, _FILES)
def test_files_that_are_nearly_right(place: Path, child: dict[str, Any], parent: dict[str, Any]) -> None:
    (place / "parent").write_text(json.dumps(parent))
    check(read(json.dumps(child).encode(), place))


_SOURCES = [
    file.read_bytes() for file in sorted((Path(__file__).parents[3] / "examples").glob("*/Agentfile"))
]
_PIECES = st.sampled_from(
    [b"\n", b"- ", b": ", b"&a ", b"*a", b"{", b"}", b"[", b"]", b"'", b'"', b"|\n", b"? "]
)
_PIECES |= st.sampled_from(
    [b"\t", b"\xff", b"\x00", b"!!x ", b"<<: ", b"${{", b"---\n", b"...\n", b"%YAML 1.1\n"]
)


@settings(max_examples=300)
@given(
    st.sampled_from(_SOURCES),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 30), _PIECES), max_size=4),
)
@example(_SOURCES[0], [(0, 0, b"? ")])
def test_files_with_damage(place: Path, data: bytes, damage: list[tuple[int, int, bytes]]) -> None:
    for at, removed, piece in damage:
        at %= len(data) or 1
        data = data[:at] + piece + data[at + removed :]
    check(read(data, place))
