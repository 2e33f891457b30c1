"""`aos explain` names the right cause for every kind of input, and `aos build --plan` tells before it happens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fix_build import Builder

pytestmark = pytest.mark.root


def _explained(builder: Builder, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = builder.aos("explain", "-o", "json", *words).json
    return found


def _causes(builder: Builder, step: str) -> list[tuple[str, str]]:
    """Kind and name of the causes of the one vertex whose step begins so, in the last build."""
    (vertex,) = [one for one in _explained(builder)["vertices"] if one["step"].startswith(step)]
    return [(cause["kind"], cause["name"]) for cause in vertex["causes"]]


def _rewrite(context: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = context / "Agentfile"
    definition = json.loads(file.read_text())
    change(definition)
    file.write_text(json.dumps(definition))


def test_a_first_build_and_an_unchanged_one(builder: Builder) -> None:
    context = builder.context(
        {"src/a": "a"}, [{"copy": {"src": "src", "dest": "/src/"}}, {"run": "true > /x"}]
    )
    first = builder.build(context, "--explain")
    assert "no earlier build had such a step" in first.err
    again = builder.build(context, "--explain")
    assert "hit       [2/2] run true > /x: saved" in again.err
    found = _explained(builder)
    assert [one["hit"] for one in found["vertices"]] == [True, True, True]
    assert found["saved_seconds"] > 0
    assert found["cost_seconds"] == 0


def test_files_that_changed_came_and_went_are_named(builder: Builder) -> None:
    context = builder.context(
        {"src/a": "a", "src/b": "b", "src/deep/c": "c"}, [{"copy": {"src": "src", "dest": "/src/"}}]
    )
    builder.build(context)
    (context / "src/a").write_text("other")
    (context / "src/b").unlink()
    (context / "src/d").write_text("new")
    result = builder.build(context, "--explain")
    assert "file src/a: changed" in result.err
    assert "file src/b: removed" in result.err
    assert "file src/d: added" in result.err
    assert _causes(builder, "copy") == [("file", "src/a"), ("file", "src/b"), ("file", "src/d")]
    (context / "src/a").chmod(0o755)
    builder.build(context)
    assert _causes(builder, "copy") == [("file", "src/a")], "an executable bit is part of it"


def test_an_argument_is_named_with_both_values(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo ${{ args.WORD }} > /word"}], args={"WORD": "one"})
    builder.build(context)
    result = builder.build(context, "--build-arg", "WORD=two", "--explain")
    assert "the argument WORD: one is now two" in result.err
    assert _causes(builder, "run") == [("argument", "WORD")]


def test_another_base_under_the_same_name_is_named(builder: Builder) -> None:
    parent = builder.context({}, [{"run": "echo 1 > /one"}], name="parent")
    builder.build(parent, "-t", "parent:1")
    child = builder.context({}, [{"run": "true > /x"}], base="parent:1", name="child")
    builder.build(child)
    _rewrite(parent, lambda definition: definition["steps"].append({"run": "echo 2 > /two"}))
    builder.build(parent, "-t", "parent:1")
    builder.build(child)
    assert ("base", "parent:1") in _causes(builder, "run true")
    found = _explained(builder)["vertices"][0]
    assert [cause["kind"] for cause in found["causes"]] == ["base"]
    assert "sha256:" in found["causes"][0]["how"]


def test_the_environment_is_named_by_its_variable(builder: Builder) -> None:
    context = builder.context({}, [{"run": "true > /x"}], config={"env": {"A": "1", "B": "1"}})
    builder.build(context)
    _rewrite(context, lambda definition: definition["config"]["env"].update(B="2", C="3"))
    builder.build(context)
    assert _causes(builder, "run") == [("environment", "B"), ("environment", "C")]
    records = [file.read_text() for file in (builder.aos.root / "build/records").glob("*.json")]
    assert records
    assert all('"B":"2"' not in text for text in records), "values are kept as digests only"


def test_the_working_directory_is_named(builder: Builder) -> None:
    context = builder.context(
        {"a": "a"}, [{"copy": {"src": "a", "dest": "sub/"}}], config={"workDir": "/one"}
    )
    builder.build(context)
    _rewrite(context, lambda definition: definition["config"].update(workDir="/two"))
    builder.build(context)
    assert _causes(builder, "copy") == [("directory", "")]


def test_a_changed_step_is_told_with_what_it_was(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo 1 > /x"}])
    builder.build(context)
    _rewrite(context, lambda definition: definition.update(steps=[{"run": "echo 2 > /x"}]))
    result = builder.build(context, "--explain")
    assert "the Agentfile: the step was `run echo 1 > /x`" in result.err
    assert _causes(builder, "run") == [("operation", "")]


def test_an_earlier_step_that_gave_another_result_is_named_and_one_that_did_not_is_not(
    builder: Builder,
) -> None:
    context = builder.context(
        {"a": "1"},
        [
            {"copy": {"src": "a", "dest": "/a"}},
            {"run": "wc -c < /a > /size; rm /a"},
            {"run": "true > /last"},
        ],
    )
    builder.build(context)
    (context / "a").write_text("2")
    builder.build(context)
    assert _causes(builder, "copy") == [("file", "a")]
    assert _causes(builder, "run wc") == [("result", "[1/3] copy a /a")]
    same = builder.context({}, [{"run": "echo 1 > /x"}, {"run": "true > /y"}], name="same")
    builder.build(same)
    _rewrite(same, lambda d: d.update(steps=[{"run": "printf '1\\n' > /x"}, {"run": "true > /y"}]))
    result = builder.build(same, "--explain")
    assert "it gave the same result as before" in result.err
    assert "hit       [2/2] run true > /y" in result.err


def test_a_tools_other_version_is_named(builder: Builder) -> None:
    """The tool is a stand-in on PATH that says another version; the base is not built, the plan is enough."""
    import shutil

    if shutil.which("mmdebstrap") is None:
        pytest.skip("missing: mmdebstrap (make test installs it)")
    context = builder.context(
        {}, [{"plugin": {"name": "debian", "with": {"suite": "bookworm"}}}], base="scratch"
    )
    plan = json.loads(builder.aos("build", "--plan=json", context).out)
    before = plan["vertices"][0]
    tools = builder.contexts / "tools"
    tools.mkdir()
    (tools / "mmdebstrap").write_text("#!/usr/bin/perl\nour $VERSION = '99.1';\n")
    (tools / "mmdebstrap").chmod(0o755)
    import os

    other = type(builder.aos)(builder.aos.config, {"PATH": f"{tools}:{os.environ['PATH']}"})
    after = json.loads(other("build", "--plan=json", context).out)["vertices"][0]
    assert before["key"] != after["key"]
    changed = {
        name for name in before["components"] if before["components"][name] != after["components"][name]
    }
    assert changed == {"tools"}


def test_platform_epoch_and_forced_steps(builder: Builder) -> None:
    context = builder.context({}, [{"run": "true > /x"}])
    builder.build(context)
    later = type(builder.aos)(builder.aos.config, {"SOURCE_DATE_EPOCH": "86400"})
    later("build", context)
    assert _causes(builder, "run") == [("epoch", "")]
    builder.build(context, "--no-cache")
    assert _causes(builder, "run") == [("forced", "")]


def test_a_result_that_was_removed_or_failed_is_told_so(builder: Builder) -> None:
    context = builder.context({}, [{"run": "true > /x"}, {"run": "exit 3"}])
    builder.build(context, check=10)
    builder.build(context, check=10)
    assert _causes(builder, "run exit 3") == [("failed", "")]
    assert _explained(builder)["outcome"] == "failed"
    builder.aos("cache", "prune")
    builder.build(context, check=10)
    assert _causes(builder, "run true") == [("forgotten", "")]


def test_builds_are_found_by_id_and_unknown_ones_refused(builder: Builder) -> None:
    context = builder.context({}, [{"run": "true > /x"}])
    builder.build(context)
    last = _explained(builder)["id"]
    builder.build(context)
    assert _explained(builder)["id"] != last
    assert _explained(builder, last)["id"] == last
    assert _explained(builder, last[:6])["id"] == last
    assert _explained(builder, "LAST")["id"] != last
    assert "no record" in builder.aos("explain", "ffffffff", check=3).err


def test_a_plan_is_printed_and_nothing_is_done(builder: Builder) -> None:
    context = builder.context(
        {"a": "a"},
        [{"copy": {"src": "a", "dest": "/a"}}, {"copy": {"from": "tools", "src": "/t", "dest": "/"}}],
        stages=[{"name": "tools", "from": "busybox:1", "steps": [{"run": "true > /t"}]}],
    )
    text = builder.aos("build", "--plan", context).out
    assert builder.aos("build", "--plan", context).out == text
    assert "to execute" in text
    assert builder.aos("packages", "inspect", "it:1.0.0", check=False).code == 3
    builder.build(context)
    plan = json.loads(builder.aos("build", "--plan=json", context).out)
    assert [vertex["state"] for vertex in plan["vertices"]] == ["base", "cached", "cached", "cached"]
    assert all(vertex["key"] for vertex in plan["vertices"][1:])
    dot = builder.aos("build", "--plan=dot", context).out
    assert dot.startswith("digraph plan {")
    assert dot.count(" -> ") == 4
