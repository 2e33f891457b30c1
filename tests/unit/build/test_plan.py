"""The plan and its keys: what changes which, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.agentfile.definition import (
    Copy,
    Definition,
    ImageConfig,
    Install,
    Metadata,
    Plugin,
    Run,
    Stage,
    Step,
)
from aos.build.plan.graph import EMPTY, Plan, State, make_plan, step_text
from aos.build.plan.keys import cache_key
from aos.errors import InvalidArgument
from aos.oci.digest import digest_of
from aos.oci.layer import Layer
from aos.package import BuiltLayer

RUN = Run(("/bin/sh", "-c", "make"))
COPY = Copy(("src",), "/src/")


def _definition(*stages: Stage, config: ImageConfig | None = None) -> Definition:
    return Definition(Metadata("it", "1.0.0"), stages, config=config or ImageConfig())


def _plan(definition: Definition, inputs: dict[tuple[str, int], dict[str, object]] | None = None) -> Plan:
    return make_plan(definition, inputs or {}, platform="linux/amd64", epoch=0)


def _layer(text: str) -> BuiltLayer:
    digest = digest_of(text.encode())
    return BuiltLayer(Layer(digest, digest, 1, "tar"), text, "", "")


def _keys(plan: Plan) -> list[str]:
    """Keys as if every vertex gave a layer that depends on nothing but its key."""
    states: dict[int, State] = {}
    keys: list[str] = []
    for vertex in plan.vertices:
        key = cache_key(vertex, plan, states)
        below = EMPTY if vertex.below is None else states[vertex.below]
        states[vertex.index] = below.on_top(_layer(key))
        keys.append(key)
    return keys


def test_stages_become_vertices_in_an_order_that_can_be_executed() -> None:
    definition = _definition(
        Stage("unused", "scratch", steps=(RUN,)),
        Stage("base", "some/base:1", steps=(RUN,)),
        Stage("tools", "some/base:1", steps=(RUN,)),
        Stage("", "base", depends_on=("tools",), steps=(replace(COPY, from_stage="tools"), RUN)),
    )
    plan = _plan(definition)
    assert [vertex.label for vertex in plan.vertices] == [
        "[base] from some/base:1",
        "[base 1/1] run make",
        "[tools 1/1] run make",
        "[1/2] copy --from=tools src /src/",
        "[2/2] run make",
    ]
    copy = plan.vertices[3]
    assert (copy.below, copy.reads, copy.after, copy.parents) == (1, (2,), (2,), (1, 2))
    assert plan.final == 4
    assert all(parent < vertex.index for vertex in plan.vertices for parent in vertex.parents)


def test_a_package_without_steps_has_an_empty_plan() -> None:
    plan = _plan(_definition(Stage("", "scratch")))
    assert (plan.vertices, plan.final) == ((), None)


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        _plan(_definition(Stage("", "scratch", steps=(replace(COPY, from_stage="nope"),))))
    assert caught.value.code == "stage-unknown"


def test_keys_follow_results_not_inputs() -> None:
    plan = _plan(_definition(Stage("", "scratch", steps=(COPY, RUN))), {("", 0): {"files": "sha256:1"}})
    changed = _plan(_definition(Stage("", "scratch", steps=(COPY, RUN))), {("", 0): {"files": "sha256:2"}})
    same_result = {0: EMPTY.on_top(_layer("the same bytes"))}
    assert cache_key(plan.vertices[0], plan, {}) != cache_key(changed.vertices[0], changed, {})
    assert cache_key(plan.vertices[1], plan, same_result) == cache_key(
        changed.vertices[1], changed, same_result
    )


CHANGES: list[tuple[str, Step]] = [
    ("args", Run(("/bin/sh", "-c", "make all"))),
    ("env", Run(("/bin/sh", "-c", "make"), env=(("A", "1"),))),
    ("user", Run(("/bin/sh", "-c", "make"), user="1000")),
    ("work dir", Run(("/bin/sh", "-c", "make"), work_dir="/src")),
    ("network", Run(("/bin/sh", "-c", "make"), network="host")),
    ("kind", Install("pip", ("make",))),
    ("tool", Install("apt", ("make",))),
    ("plugin", Plugin("debian", (("suite", "bookworm"),))),
    ("plugin option", Plugin("debian", (("suite", "trixie"),))),
    ("copy", COPY),
    ("copy dest", replace(COPY, dest="/other/")),
    ("copy owner", replace(COPY, owner=(1, 1))),
    ("copy mode", replace(COPY, mode=0o700)),
]


def test_everything_that_shapes_a_step_is_in_its_key() -> None:
    steps = [RUN, *(step for _, step in CHANGES)]
    keys = {_keys(_plan(_definition(Stage("", "scratch", steps=(step,)))))[0] for step in steps}
    assert len(keys) == len(steps)


def test_platform_epoch_and_inputs_are_in_the_key() -> None:
    definition = _definition(Stage("", "scratch", steps=(COPY,)))
    plans = [
        make_plan(definition, {}, platform="linux/amd64", epoch=0),
        make_plan(definition, {}, platform="linux/arm64", epoch=0),
        make_plan(definition, {}, platform="linux/amd64", epoch=1),
        make_plan(definition, {("", 0): {"files": "x"}}, platform="linux/amd64", epoch=0),
    ]
    assert len({_keys(plan)[0] for plan in plans}) == 4


def test_the_package_environment_reaches_only_the_steps_that_see_it() -> None:
    stages = (
        Stage("build", "scratch", steps=(RUN,)),
        Stage("", "build", steps=(Install("pip", ("x",)), RUN)),
    )
    before = _keys(_plan(_definition(*stages)))
    after = _keys(_plan(_definition(*stages, config=ImageConfig(env=(("A", "1"),)))))
    assert before[:2] == after[:2]
    assert before[2] != after[2]


def test_the_environment_of_the_base_is_in_the_key() -> None:
    plan = _plan(_definition(Stage("", "some/base", steps=(RUN,))))
    keys = {
        cache_key(plan.vertices[1], plan, {0: state})
        for state in (EMPTY, State(env=(("A", "1"),)), State(work_dir="/w"), EMPTY.on_top(_layer("x")))
    }
    assert len(keys) == 4


def test_where_an_agentfile_lies_and_what_stages_are_called_is_in_no_key() -> None:
    one = _plan(_definition(Stage("a", "scratch", steps=(RUN,), location="/x/Agentfile:1:1")))
    other = _plan(_definition(Stage("b", "scratch", steps=(RUN,), location="/y/Agentfile:9:9")))
    assert _keys(one) == _keys(other)


def test_the_chain_is_that_of_the_image_specification() -> None:
    first, second = _layer("1"), _layer("2")
    assert EMPTY.chain == ""
    assert EMPTY.on_top(first).chain == first.layer.diff_id
    both = EMPTY.on_top(first).on_top(second)
    assert both.chain == digest_of(f"{first.layer.diff_id} {second.layer.diff_id}".encode())
    assert both.on_top(None) is both


def test_texts_are_one_line() -> None:
    assert step_text(Run(("/bin/sh", "-c", "a\n  b"))) == "run a b"
    assert step_text(Run(("ls", "-l"))) == 'run ["ls", "-l"]'
    assert step_text(Install("pip", ("a==1",), "r.txt")) == "install pip a==1 -r r.txt"
    assert step_text(Plugin("debian", (("suite", "sid"),))) == 'plugin debian {"suite": "sid"}'
    assert step_text(Plugin("x")) == "plugin x"


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=8))
def test_any_graph_of_stages_gives_the_same_ordered_plan_twice(wanted: list[list[int]]) -> None:
    stages: list[Stage] = []
    for number, parents in enumerate(wanted):
        known = [f"s{parent % number}" for parent in parents] if number else []
        stages.append(
            Stage(
                f"s{number}",
                known[0] if known else "scratch",
                depends_on=tuple(dict.fromkeys(known[1:2])),
                steps=(RUN, *(replace(COPY, from_stage=name) for name in known[2:])),
            )
        )
    definition = _definition(*stages)
    plan = _plan(definition)
    assert plan == _plan(definition)
    assert all(parent < vertex.index for vertex in plan.vertices for parent in vertex.parents)
    assert plan.final is not None
    assert plan.vertices[plan.final].stage == stages[-1].name


NAMES = st.sampled_from(["s0", "s1", "s2", "s3"])
STEPS = st.one_of(
    st.builds(lambda text: Run(("/bin/sh", "-c", text)), st.sampled_from(["a", "b", "c"])),
    st.builds(lambda dest: replace(COPY, dest=dest), st.sampled_from(["/a/", "/b/"])),
    st.builds(lambda name: Install("pip", (name,)), st.sampled_from(["x", "y"])),
    st.builds(lambda suite: Plugin("debian", (("suite", suite),)), st.sampled_from(["bookworm", "trixie"])),
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """Stages on each other, on images and on nothing; steps that read earlier stages."""
    stages: list[Stage] = []
    for number in range(draw(st.integers(1, 4))):
        earlier = [stage.name for stage in stages]
        base = draw(st.sampled_from(["scratch", "an/image:1", *earlier]))
        steps = draw(st.lists(STEPS, max_size=4))
        if earlier:
            sources = draw(st.lists(st.sampled_from(earlier), max_size=2))
            steps += [replace(COPY, from_stage=name, src=("/x",)) for name in sources]
        depends = (
            tuple(dict.fromkeys(draw(st.lists(st.sampled_from(earlier), max_size=2)))) if earlier else ()
        )
        stages.append(Stage(f"s{number}", base, depends, tuple(steps)))
    return _definition(*stages)


def _inputs(definition: Definition, salt: str = "") -> dict[tuple[str, int], dict[str, object]]:
    return {
        (stage.name, at): {"files": f"sha256:{stage.name}{at}{salt}"}
        for stage in definition.stages
        for at, step in enumerate(stage.steps)
        if step.kind == "copy" and not step.from_stage
    }


@given(definitions())
def test_every_vertex_comes_after_what_it_needs_and_only_needed_stages_are_there(
    definition: Definition,
) -> None:
    plan = _plan(definition, _inputs(definition))
    assert [vertex.index for vertex in plan.vertices] == list(range(len(plan.vertices)))
    assert all(parent < vertex.index for vertex in plan.vertices for parent in vertex.parents)
    stages = {stage.name: stage for stage in definition.stages}
    needed, pending = set[str](), [definition.final.name]
    while pending:
        name = pending.pop()
        if name in stages and name not in needed:
            needed.add(name)
            pending += [stages[name].base, *stages[name].depends_on]
            pending += [step.from_stage for step in stages[name].steps if step.kind == "copy"]
    steps = sum(len(stages[name].steps) for name in needed)
    assert len([vertex for vertex in plan.vertices if vertex.step is not None]) == steps
    assert {vertex.stage for vertex in plan.vertices} <= needed


@given(definitions())
def test_the_plan_and_its_keys_are_the_same_under_irrelevant_changes(definition: Definition) -> None:
    plan = _plan(definition, _inputs(definition))
    renamed = replace(definition, metadata=Metadata("other", "9.9.9", "words"))
    moved = replace(
        definition,
        stages=tuple(replace(stage, location="/elsewhere:1:1") for stage in definition.stages),
    )
    unused = replace(definition, stages=(Stage("unused", "scratch", steps=(RUN,)), *definition.stages))
    for other in (renamed, moved, unused):
        same = _plan(other, _inputs(other))
        assert _keys(same) == _keys(plan)
        assert [vertex.label for vertex in same.vertices] == [vertex.label for vertex in plan.vertices]


@given(definitions(), st.data())
def test_a_changed_file_changes_the_keys_of_what_sees_it_and_of_nothing_else(
    definition: Definition, data: st.DataObject
) -> None:
    inputs = _inputs(definition)
    if not inputs:
        return
    place = data.draw(st.sampled_from(sorted(inputs)))
    plan = _plan(definition, inputs)
    changed = _plan(definition, {**inputs, place: {"files": "sha256:changed"}})
    touched = set[int]()
    for vertex in plan.vertices:
        if (vertex.place == place and vertex.step is not None) or touched & {vertex.below, *vertex.reads}:
            touched.add(vertex.index)
    before, after = _keys(plan), _keys(changed)
    assert {at for at, key in enumerate(before) if key != after[at]} == touched


@given(definitions())
def test_a_target_is_the_part_of_the_plan_that_it_needs_with_the_same_keys(definition: Definition) -> None:
    whole = _plan(definition, _inputs(definition))
    keys = {
        (vertex.place, vertex.base): key for vertex, key in zip(whole.vertices, _keys(whole), strict=True)
    }
    for stage in definition.stages:
        part = make_plan(definition, _inputs(definition), platform="linux/amd64", epoch=0, target=stage.name)
        for vertex, key in zip(part.vertices, _keys(part), strict=True):
            if vertex.step is not None and (vertex.place, vertex.base) in keys:
                assert keys[vertex.place, vertex.base] == key
    with pytest.raises(InvalidArgument):
        make_plan(definition, {}, platform="linux/amd64", epoch=0, target="nope")


def test_what_a_component_holds_cannot_look_like_another() -> None:
    """No text in one component makes the key of another combination."""
    plans = [
        _plan(_definition(Stage("", "scratch", steps=(COPY,)), config=ImageConfig(work_dir=text)))
        for text in ("/a", '/a"],["below","', "/a\nengine 1", "/a\x00")
    ]
    assert len({_keys(plan)[0] for plan in plans}) == len(plans)


def test_steps_see_only_the_environment_that_reaches_them() -> None:
    plan = _plan(_definition(Stage("", "some/base", steps=(COPY, Plugin("x"), RUN))))
    one, other = State(env=(("A", "1"),)), State(env=(("A", "2"),))
    changed = [
        cache_key(vertex, plan, {0: one, 1: one, 2: one})
        != cache_key(vertex, plan, {0: other, 1: other, 2: other})
        for vertex in plan.vertices[1:]
    ]
    assert changed == [False, False, True]
