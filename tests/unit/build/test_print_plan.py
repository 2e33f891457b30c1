"""Printed plans: the same every time, parsable, and hostile names stay text."""

from __future__ import annotations

import json

from aos.agentfile.definition import Copy, Definition, Metadata, Run, Stage
from aos.build.plan.graph import make_plan
from aos.build.plan.shown import Known, Outline, print_plan

STAGES = (
    Stage("base", "some/image:1", steps=(Run(("/bin/sh", "-c", 'echo "quoted" \\ back')),)),
    Stage("", "base", depends_on=("base",), steps=(Copy(("/x",), "/", from_stage="base"),)),
)
PLAN = make_plan(Definition(Metadata("it", "1.0.0"), STAGES), {}, platform="linux/amd64", epoch=7)
OUTLINE = Outline("it:1.0.0", PLAN, (Known(state="base"), Known("ab" * 32, (), "cached", 1.5), Known()))


def test_text_names_states_keys_and_parents() -> None:
    assert print_plan(OUTLINE, "text").splitlines() == [
        "it:1.0.0 for linux/amd64, 3 vertices",
        "#1 [base] from some/image:1",
        "    base",
        '#2 [base 1/1] run echo "quoted" \\ back',
        "    cached, key abababababab, after #1, made in 1.5 s",
        "#3 [1/1] copy --from=base /x /",
        "    open, after #2",
    ]


def test_json_has_vertices_and_edges() -> None:
    found = json.loads(print_plan(OUTLINE, "json"))
    assert (found["platform"], found["epoch"], found["final"]) == ("linux/amd64", 7, 2)
    assert [vertex["key"] for vertex in found["vertices"]] == [None, "ab" * 32, None]
    assert found["vertices"][2]["edges"] == [
        {"kind": "below", "from": 1},
        {"kind": "reads", "from": 1},
        {"kind": "after", "from": 1},
    ]


def test_graphviz_gets_one_node_a_vertex_and_texts_that_stay_texts() -> None:
    lines = print_plan(OUTLINE, "dot").splitlines()
    assert lines[0] == "digraph plan {"
    assert lines[-1] == "}"
    assert lines[3] == '  v1 [label="[base 1/1] run echo \\"quoted\\" \\\\ back\\ncached", style=filled];'
    assert [line.split(" [")[0].strip() for line in lines if "->" in line] == [
        "v0 -> v1",
        "v1 -> v2",
        "v1 -> v2",
        "v1 -> v2",
    ]
