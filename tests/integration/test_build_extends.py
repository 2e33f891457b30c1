"""Build arguments and parents, built: what reaches the package, and what is executed again when they change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fix_build import Builder

pytestmark = pytest.mark.root

HEAD = "apiVersion: aos.io/v1\nkind: AgentPackage\n"


def facts(builder: Builder, reference: str) -> dict[str, Any]:
    return dict(json.loads(builder.aos("packages", "inspect", "-o", "json", reference).out))


def write(directory: Path, text: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "Agentfile").write_text(HEAD + text)
    return directory


def test_only_steps_that_name_an_argument_are_executed_again(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = builder.context(
        {},
        [{"run": "echo plain > /plain"}, {"run": "echo ${{ args.WHO }} ${HOME:-nobody} > /who"}],
        name="arguments",
        args={"WHO": "you"},
    )
    builder.build(context)
    err = builder.build(context, "--build-arg", "WHO=me").err
    assert "run echo plain > /plain: cached" in err
    assert "run echo me ${HOME:-nobody} > /who: cached" not in err
    assert (builder.unpack(context) / "who").read_text().startswith("you ")
    monkeypatch.setenv("WHO", "me")
    again = builder.build(context, "--build-arg", "WHO")
    assert "run echo me ${HOME:-nobody} > /who: cached" in again.err
    refused = builder.build(context, "--build-arg", "WHOM=me", check=2)
    assert "did you mean 'WHO'" in refused.err


def test_a_child_of_a_file_is_one_package_and_shares_its_parents_steps(builder: Builder) -> None:
    base = write(
        builder.contexts / "base",
        "metadata: {name: base, version: 1.0.0}\n"
        "from: busybox:1\nsteps: [{run: echo base > /base}, {copy: {src: own, dest: /}}]\n"
        "config: {env: {A: base}}\nentrypoint: {command: [/bin/sh], args: ['-i']}\n",
    )
    (base / "own").write_text("of the base")
    child = write(
        builder.contexts / "child",
        "metadata: {name: child, version: 1.0.0}\nextends: ../base/Agentfile\n"
        "steps: [{run: cat /base /own > /both}]\n",
    )
    (child / "own").write_text("of the child")
    builder.build(base)
    assert "run echo base > /base: cached" in builder.build(child).err
    root = builder.unpack(child)
    assert (root / "both").read_text() == "base\nof the child"
    definition = facts(builder, "child:1.0.0")["definition"]
    assert "extends" not in json.dumps(definition)
    assert definition["entrypoint"] == {"command": ["/bin/sh"], "args": ["-i"]}
    (child / "own").unlink()
    missing = builder.build(child, check=3)
    assert "own" in missing.err


def test_a_child_of_a_package_stands_on_its_image(builder: Builder) -> None:
    base = write(
        builder.contexts / "base",
        "metadata: {name: base, version: 1.0.0}\n"
        "from: busybox:1\nsteps: [{run: echo base > /base}]\nconfig: {env: {A: base, B: base}}\n"
        "entrypoint: {command: [/bin/sh]}\nresources: {memory: 64Mi}\n",
    )
    builder.build(base)
    digest = facts(builder, "base:1.0.0")["digest"]
    child = write(
        builder.contexts / "child",
        "metadata: {name: child, version: 1.0.0}\nextends: base:1.0.0\n"
        "steps: [{run: 'echo $A $B > /child'}]\nconfig: {env: {B: child}}\n",
    )
    resolved = builder.aos("validate", "--resolved", child).out
    assert f"from: base:1.0.0@{digest}" in resolved
    assert f"# base:1.0.0@{digest}" in resolved
    err = builder.build(child).err
    assert "echo base" not in err
    root = builder.unpack(child)
    assert (root / "base").read_text() == "base\n"
    assert (root / "child").read_text() == "base child\n"
    found = facts(builder, "child:1.0.0")["definition"]
    assert found["resources"] == {"memory": 64 << 20}
    assert found["stages"][0]["base"] == f"base:1.0.0@{digest}"
    missing = write(child, "metadata: {name: child, version: 1.0.0}\nextends: bsae:1.0.0\n")
    assert "did you mean base:1.0.0?" in builder.build(missing, check=2).err


def test_validate_shows_what_is_resolved_and_tells_problems_to_programs(builder: Builder) -> None:
    write(builder.contexts / "base", "from: busybox:1\nsteps: [run: 'echo ${HOME}']\nargs: {V: }\n")
    child = write(
        builder.contexts / "child",
        'metadata: {name: child, version: "${{ args.V }}"}\nextends: ../base/Agentfile\n',
    )
    words = ("validate", "--resolved", "-o", "json", child)
    shown = json.loads(builder.aos(*words, "--build-arg", "V=1.2.3").out)
    assert shown["agentfile"]["metadata"] == {"name": "child", "version": "1.2.3"}
    assert shown["origins"]["/metadata/version"] == f"{child}/Agentfile:3 with args.V"
    assert shown["origins"]["/steps/0/run"] == f"{builder.contexts}/base/Agentfile:4"
    [problem] = json.loads(builder.aos(*words, check=2).out)
    assert (problem["file"], problem["code"]) == (f"{builder.contexts}/base/Agentfile", "missing-argument")
    assert problem["via"] == [f"{child}/Agentfile:4:10"]
