"""Steps: what `run` mounts, what `install` is given; every form, every mistake, and the way back from JSON."""

from __future__ import annotations

import json

import pytest

from aos.agentfile import AgentfileError, loads
from aos.agentfile.definition import BindMount, CacheMount, Copy, Definition, Install, Run, SecretMount

HEAD = b"apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: it, version: 1.0.0}\n"


def read(steps: str, stages: str = "[]") -> Definition:
    return loads(HEAD + f"stages: {stages}\nfrom: scratch\nsteps:\n  - {steps}\n".encode())


def only_run(text: str) -> Run:
    definition = read(f"run: {{command: make, {text}}}", "[{name: tools, from: scratch}]")
    step = definition.final.steps[0]
    assert isinstance(step, Run)
    again = Definition.from_json(json.loads(json.dumps(definition.to_json())))
    assert again.final.steps[0] == step
    return step


def test_caches() -> None:
    step = only_run("cache: [{target: /root/.cache/}, {target: /c, id: wheels, sharing: locked}]")
    assert step.caches == (
        CacheMount("/root/.cache", "/root/.cache", "shared"),
        CacheMount("/c", "wheels", "locked"),
    )


def test_secrets() -> None:
    step = only_run(
        "secrets: [token, {id: key, env: KEY}, {id: npmrc, target: /root/.npmrc, env: RC, mode: 0600}, "
        "{id: maybe, required: false}]"
    )
    assert step.secrets == (
        SecretMount("token", "/run/secrets/token"),
        SecretMount("key", "", "KEY"),
        SecretMount("npmrc", "/root/.npmrc", "RC", mode=0o600),
        SecretMount("maybe", "/run/secrets/maybe", required=False),
    )


def test_mounts_and_the_stages_they_need() -> None:
    step = only_run(
        "mounts: [{target: /t, from: tools, source: /usr//share/}, {target: /src}, "
        "{target: /i, from: 'debian:12', source: etc}]"
    )
    assert step.mounts == (
        BindMount("/t", "tools", "/usr/share"),
        BindMount("/src", "", "/"),
        BindMount("/i", "debian:12", "etc"),
    )


@pytest.mark.parametrize(("text", "ids"), [("true", ("default",)), ("false", ()), ("[a, b, a]", ("a", "b"))])
def test_ssh(text: str, ids: tuple[str, ...]) -> None:
    assert only_run(f"ssh: {text}").ssh == ids


def test_a_stage_that_is_mounted_is_built_before_and_can_close_a_circle() -> None:
    user = "{name: user, from: scratch, steps: [{run: {command: x, mounts: [{target: /m, from: tools}]}}]}"
    tools = "{name: tools, from: %s}"
    stages = read("run: x", f"[{user}, {tools % 'scratch'}]").stages
    assert [stage.name for stage in stages] == ["tools", "user", ""]
    with pytest.raises(AgentfileError, match="user -> tools -> user"):
        read("run: x", f"[{user}, {tools % 'user'}]")


def test_a_project_is_installed_from_its_lock() -> None:
    definition = read("install: {pip: {project: ./agent, network: false}}")
    assert definition.final.steps[0] == Install("pip", project="./agent", network=False)
    assert Definition.from_json(definition.to_json()).final.steps == definition.final.steps


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("run: {command: x, cache: [{target: relative}]}", "must be absolute"),
        ("run: {command: x, cache: [{target: /}]}", "not /"),
        ("run: {command: x, cache: [{target: /a/../b}]}", "must not hold '..'"),
        ("run: {command: x, cache: [{target: /a, sharing: lock}]}", "choose from: shared, private, locked"),
        ("run: {command: x, cache: [{id: a}]}", "needs 'target'"),
        ("run: {command: x, cache: [/a]}", "must be a mapping"),
        ("run: {command: x, cache: {target: /a}}", "must be a list"),
        ("run: {command: x, cache: [{target: /a}], mounts: [{target: /a/}]}", "two mounts of the step"),
        ("run: {command: x, secrets: [{target: /a}]}", "needs 'id'"),
        ("run: {command: x, secrets: [a b]}", "cannot be an id"),
        ("run: {command: x, secrets: [{id: a, env: 1A}]}", "cannot name a variable"),
        ("run: {command: x, secrets: [{id: a, mode: 9}]}", "octal"),
        ("run: {command: x, secrets: [{id: a, requird: true}]}", "did you mean 'required'"),
        ("run: {command: x, mounts: [{target: /a, source: ../b}]}", "must not hold '..'"),
        ("run: {command: x, mounts: [{target: /a, from: tols}]}", "did you mean 'tools'"),
        ("run: {command: x, ssh: default}", "must be a list"),
        ("run: {command: x, ssh: [1]}", "must be a string"),
        ("install: {pip: {project: a, packages: [b]}}", "stands alone"),
        ("install: {pip: {}}", "packages or requirements or project"),
        ("install: {apt: {project: a}}", "no field 'project'"),
    ],
)
def test_a_mistake_is_told(step: str, words: str) -> None:
    with pytest.raises(AgentfileError) as refused:
        read(step, "[{name: tools, from: scratch}]")
    assert words in refused.value.message
    assert all(problem.line == 7 for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("7", (7, 7)),
        ('"7:8"', (7, 8)),
        ("agent", ("agent", "")),
        ('"agent:staff"', ("agent", "staff")),
        ('"7:staff"', (7, "staff")),
        ('"www-data:33"', ("www-data", 33)),
    ],
)
def test_owners(text: str, owner: tuple[int | str, int | str]) -> None:
    definition = read(f"copy: {{src: a, dest: /a, owner: {text}}}")
    step = definition.final.steps[0]
    assert isinstance(step, Copy)
    assert step.owner == owner
    assert Definition.from_json(json.loads(json.dumps(definition.to_json()))).final.steps[0] == step


@pytest.mark.parametrize(
    "text", ['""', '"a:"', '":b"', '"a b"', '"1:2:3"', '"-1"', '"99999999999"', "[1]", '"a/b"']
)
def test_an_owner_that_is_none(text: str) -> None:
    with pytest.raises(AgentfileError, match="owner"):
        read(f"copy: {{src: a, dest: /a, owner: {text}}}")
