"""`extends`: what merges how, that places are the parents' own, and every way in which it cannot work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aos.agentfile import AgentfileError, load, load_resolved, loads
from aos.agentfile.definition import Copy, Definition, Plugin, Run
from aos.agentfile.extends import Package
from aos.errors import NotFound

HEAD = "apiVersion: aos.io/v1\nkind: AgentPackage\n"
NAMED = HEAD + "metadata: {name: it, version: 1.0.0}\n"
BASE = (
    HEAD
    + """
metadata: {name: base, version: 9.9.9, description: a base, labels: {a: "1", b: "2"}}
stages:
  - {name: tools, from: scratch, steps: [{plugin: debian}]}
  - {name: extra, from: tools, dependsOn: [tools], steps: [{run: one}]}
from: tools
steps: [{run: base}]
config: {env: {A: "1", B: "2"}, workDir: /base, user: nobody, image: {StopSignal: SIGINT}}
entrypoint: {command: [python3], args: [base.py]}
resources: {cpu: 1.5, memory: 512Mi}
network: host
restart: on-failure
"""
)


def shell(text: str) -> Run:
    return Run(("/bin/sh", "-c", text))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write files below an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return Path("child")

    return write


def extended(write: Any, text: str, base: str = BASE) -> Definition:
    return load(write(base=base, child=NAMED + "extends: ./base\n" + text))


def refused(path: Path, **options: Any) -> AgentfileError:
    with pytest.raises(AgentfileError) as error:
        load(path, **options)
    return error.value


def test_nothing_of_its_own_is_the_parent_but_for_its_name(write: Any) -> None:
    child, parent = extended(write, ""), load(Path("base"))
    raw = parent.to_json()
    raw["metadata"] |= {"name": "it", "version": "1.0.0"}
    assert child.to_json() == raw


def test_scalars_and_lists_replace_and_mappings_merge_by_key(write: Any) -> None:
    child = extended(
        write,
        'config: {env: {B: x, C: "3"}, workDir: /child}\nresources: {memory: 1Gi, pids: 5}\nrestart: never\n',
    )
    assert child.config.env == (("A", "1"), ("B", "x"), ("C", "3"))
    assert (child.config.work_dir, child.config.user) == ("/child", "nobody")
    assert child.config.image == (("StopSignal", "SIGINT"),)
    assert (child.resources.cpu, child.resources.memory, child.resources.pids) == (1.5, 1 << 30, 5)
    assert (child.network, child.restart) == ("host", "never")


def test_null_takes_out_what_is_inherited_and_nothing_else(write: Any) -> None:
    child = extended(write, "config: {env: {A: null}, workDir: }\nresources: ~\nentrypoint: {args: null}\n")
    assert (child.config.env, child.config.work_dir, child.config.user) == ((("B", "2"),), "", "nobody")
    assert child.resources.cpu is None
    assert child.entrypoint.command == ("python3",)
    assert child.entrypoint.args == ()
    assert (
        "config.env.Z must be a string, not nothing"
        in refused(write(child=NAMED + "extends: ./base\nconfig: {env: {Z: null}}\n")).message
    )


def test_metadata_labels_merge_and_the_name_is_never_inherited(write: Any) -> None:
    child = extended(write, "")
    assert child.metadata.description == "a base"
    text = HEAD + 'extends: ./base\nmetadata: {name: it, version: 1.0.0, labels: {b: "3", a: null}}\n'
    assert load(write(child=text)).metadata.labels == (("b", "3"),)
    error = refused(write(child=HEAD + "extends: ./base\n"))
    assert [problem.code for problem in error.problems] == ["missing-field", "missing-field"]


@pytest.mark.parametrize(
    ("text", "command", "args"),
    [
        ("{command: [sh]}", ("sh",), ()),
        ("{args: [x]}", ("python3",), ("x",)),
        ("{command: [sh], args: [x]}", ("sh",), ("x",)),
        ("{}", ("python3",), ("base.py",)),
        ("null", (), ()),
    ],
)
def test_a_command_takes_the_arguments_with_it(
    write: Any, text: str, command: tuple[str, ...], args: tuple[str, ...]
) -> None:
    child = extended(write, f"entrypoint: {text}\n")
    assert (child.entrypoint.command, child.entrypoint.args) == (command, args)


def test_without_from_the_steps_stand_on_the_parents(write: Any) -> None:
    child = extended(write, "steps: [{run: child}]\n")
    assert [stage.name for stage in child.stages] == ["tools", "extra", ""]
    assert child.final.base == "tools"
    assert child.final.steps == (shell("base"), shell("child"))
    assert child.final.step_locations == ("base:9:9", "child:5:9")


def test_from_begins_the_stage_anew_and_the_parents_stages_are_there(write: Any) -> None:
    child = extended(write, "from: extra\nsteps: [{copy: {from: tools, src: /a, dest: /a}}]\n")
    assert child.final.base == "extra"
    assert child.final.steps == (Copy(("/a",), "/a", "tools"),)


def test_stages_merge_by_name(write: Any) -> None:
    child = extended(
        write,
        "stages:\n"
        "  - {name: extra, dependsOn: [new], steps: [{run: two}]}\n"
        "  - {name: tools, from: scratch, steps: [{run: other}]}\n"
        "  - {name: new, from: scratch}\n",
    )
    stages = {stage.name: stage for stage in child.stages}
    assert stages["extra"].base == "tools"
    assert stages["extra"].depends_on == ("new",)
    assert stages["extra"].steps == (shell("one"), shell("two"))
    assert stages["tools"].steps == (shell("other"),)
    assert [stage.name for stage in child.stages] == ["tools", "new", "extra", ""]


def test_a_parent_of_stages_alone_goes_on_from_its_last(write: Any) -> None:
    base = HEAD + "stages: [{name: a, from: scratch}, {name: b, from: a, steps: [{run: x}]}]\n"
    assert extended(write, "", base).final.name == "b"
    child = extended(write, "steps: [{run: z}]\n", base)
    assert (child.final.name, child.final.base, child.final.steps) == ("", "b", (shell("z"),))
    assert extended(write, "stages: [{name: c, from: b}]\n", base).final.name == "c"


def test_a_stage_that_comes_to_need_itself(write: Any) -> None:
    circle = "stages: [{name: tools, steps: [{copy: {from: extra, src: /a, dest: /a}}]}]\n"
    [problem] = refused(write(base=BASE, child=NAMED + "extends: ./base\n" + circle)).problems
    assert (problem.file, problem.line, problem.code) == ("child", 5, "stage-cycle")
    assert "tools -> extra -> tools" in problem.message


def test_several_levels_in_several_directories(write: Any) -> None:
    write(
        a__Agentfile=HEAD
        + "args: {X: a}\nfrom: scratch\nsteps: [run: 'a ${{ args.X }}']\nconfig: {env: {L: a}}\n",
        b__Agentfile=HEAD + "extends: ../a/Agentfile\nargs: {X: b}\nsteps: [run: b]\nconfig: {env: {M: b}}\n",
        c__Agentfile=NAMED + "extends: ./../b/Agentfile\nsteps: [run: c]\nconfig: {env: {L: c}}\n",
    )
    child = load(Path("c/Agentfile"))
    assert child.final.steps == (shell("a b"), shell("b"), shell("c"))
    assert child.config.env == (("L", "c"), ("M", "b"))
    assert child.final.step_locations == ("a/Agentfile:5:9", "b/Agentfile:5:9", "c/Agentfile:5:9")
    assert load(Path("c/Agentfile"), arguments={"X": "given"}).final.steps[0] == shell("a given")


def test_nothing_of_extends_and_args_is_in_the_definition(write: Any) -> None:
    text = str(extended(write, "args: {A: x}\nsteps: [{run: '${{ args.A }}'}]\n").to_json())
    assert "extends" not in text
    assert "args.A" not in text


def test_a_mistake_in_a_parent_is_told_there_with_the_way_to_it(write: Any) -> None:
    write(mid__Agentfile=HEAD + "extends: ../base\n", base=BASE.replace("1.5", "lots"))
    error = refused(write(child=NAMED + "extends: ./mid/Agentfile\nrestart: no\n"))
    own, inherited = error.problems
    assert (own.file, own.line, own.via) == ("child", 5, ())
    assert (inherited.file, inherited.line, inherited.column) == ("base", 12, 18)
    assert inherited.via == ("mid/Agentfile:3:10", "child:4:10")
    assert (
        "base:12:18: resources.cpu must be a number of CPUs, such as 1.5, 2 or 500m, not 'lots'\n"
        "    resources: {cpu: lots, memory: 512Mi}\n"
        "                     ^\n"
        "    extended by mid/Agentfile:3:10\n"
        "    extended by child:4:10" in error.message
    )


@pytest.mark.parametrize(
    ("base", "place", "code", "words"),
    [
        ("a: [", "base:2", "agentfile-syntax", "not YAML"),
        ("[]", "base:1", "agentfile-invalid", "must be a mapping"),
        ("kind: AgentPackage\napiVersion: v2\n", "base:2", "agentfile-invalid", "must be aos.io/v1"),
        ("from: x\n", "base:1", "missing-field", "apiVersion"),
        (HEAD + "form: x\n", "base:3", "unknown-field", "did you mean 'from'"),
        (HEAD + "from: x\nfrom: y\n", "base:4", "duplicate-key", "twice"),
        (HEAD + "extends: 1\n", "base:3", "wrong-type", "must be a string"),
        (BASE.replace("from: tools,", "from: extra,"), "base:7", "stage-cycle", "extra -> extra"),
    ],
)
def test_a_parent_that_is_no_agentfile(write: Any, base: str, place: str, code: str, words: str) -> None:
    error = refused(write(base=base, child=NAMED + "extends: ./base\n"))
    found = [(f"{one.file}:{one.line}", one.code) for one in error.problems]
    assert (place, code) in found
    assert words in error.message
    assert "extended by child:4:10" in error.message


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("./gone", "extends-not-found", "there is no gone"),
        ("./base/gone", "extends-not-found", "there is no base/gone"),
        ("../../../../../../../../../../../gone", "extends-not-found", "there is no ../"),
        ("./directory", "extends-invalid", "name the file in it: ./directory/Agentfile"),
        ("./fifo", "extends-invalid", "is not a file"),
        ("./" + "x" * 5000, "extends-invalid", "cannot be read"),
        ("/etc/passwd", "extends-invalid", "must not be an absolute path"),
        ("~/Agentfile", "extends-invalid", "must not be an absolute path"),
        ("base", "extends-not-found", "for the file, write ./base"),
        ("${{ args.A }}", "extends-invalid", "cannot be used in extends"),
        ('"./${{ args.A }}"', "extends-invalid", "cannot be used in extends"),
        ('""', "agentfile-invalid", "must not be empty"),
        ('"./a\\0b"', "agentfile-invalid", "NUL"),
        ("[./base]", "agentfile-invalid", "must be a string, not a list"),
        ("./child", "extends-invalid", "extends itself, by way of child:4:10"),
    ],
)
def test_what_cannot_be_extended(write: Any, text: str, code: str, words: str) -> None:
    path = write(base=BASE, child=f"{NAMED}extends: {text}\n", directory__other="")
    os.mkfifo("fifo")
    error = refused(path)
    assert [(one.line, one.column, one.code) for one in error.problems] == [(4, 10, code)]
    assert words in error.message


def test_a_circle_is_told_with_all_of_its_files(write: Any) -> None:
    write(a=HEAD + "extends: ./b\n", b=HEAD + "extends: ./c\n", c=HEAD + "extends: ./x/../b\n", x__y="")
    [problem] = refused(write(child=NAMED + "extends: ./a\n")).problems
    assert problem.code == "extends-invalid"
    assert problem.message == "b extends itself, by way of child:4:10 and a:3:10 and b:3:10 and c:3:10"
    Path("link").symlink_to("child")
    assert "extends itself" in refused(write(child=NAMED + "extends: ./link\n")).message


def test_a_chain_that_is_too_long(write: Any) -> None:
    for number in range(40):
        write(**{f"f{number}": HEAD + f"extends: ./f{number + 1}\n"})
    assert "more than 32 files" in refused(write(child=NAMED + "extends: ./f0\n")).message
    write(f30=HEAD + "from: scratch\n")
    assert load(Path("child")).final.base == "scratch"


def test_a_tree_that_contains_itself_by_aliases_ends(write: Any) -> None:
    bomb = "x: &a {y: *a}\n"
    assert (
        "alias of what it stands in"
        in refused(write(base=HEAD + bomb, child=NAMED + "extends: ./base\n" + bomb)).message
    )


PACKAGE = "base:1@sha256:" + "a" * 64


def packages(definition: dict[str, Any] | None) -> Any:
    def find(reference: str) -> Package:
        if reference != "base:1":
            raise NotFound(f"no package {reference!r}", code="package-not-found", hint="did you mean base:1?")
        return Package(PACKAGE, definition)

    return find


def test_a_package_gives_its_image_and_its_settings(write: Any) -> None:
    parents = packages(loads(BASE.replace("a base", '"a $${{ base }}"').encode()).to_json())
    path = write(child=NAMED + "extends: base:1\nsteps: [run: x]\nconfig: {env: {B: x}}\n")
    child = load(path, parents=parents)
    assert [stage.name for stage in child.stages] == [""]
    assert (child.final.base, child.final.steps) == (PACKAGE, (shell("x"),))
    assert child.config.env == (("A", "1"), ("B", "x"))
    assert child.entrypoint.args == ("base.py",)
    assert (child.resources.cpu, child.resources.memory) == (1.5, 512 << 20)
    assert (child.network, child.restart) == ("host", "on-failure")
    assert (child.metadata.name, child.metadata.description) == ("it", "a ${{ base }}")
    assert (
        load(write(child=NAMED + "extends: base:1\nfrom: scratch\n"), parents=parents).final.base == "scratch"
    )


def test_a_package_gives_the_life_of_its_agents(write: Any) -> None:
    life = (
        "restart: {policy: always, limit: {restarts: 5, within: 60}}\nstopGracePeriod: 3\n"
        "health: {exec: [check, a_b], startPeriod: 1}\nreadiness: {tcp: 80}\n"
        "hooks: {preStart: {exec: x, onFailure: ignore}, postStop: {exec: z, where: host}}\n"
    )
    parent = loads((BASE.replace("restart: on-failure\n", "") + life).encode())
    child = load(write(child=NAMED + "extends: base:1\n"), parents=packages(parent.to_json()))
    for name in ("restart", "restart_limit", "stop_grace", "health", "readiness", "hooks"):
        assert getattr(child, name) == getattr(parent, name)


def test_a_file_may_extend_a_package_and_be_extended(write: Any) -> None:
    parents = packages(loads(BASE.encode()).to_json())
    write(mid=HEAD + "extends: base:1\nsteps: [plugin: git]\n")
    child = load(write(child=NAMED + "extends: ./mid\nsteps: [run: x]\n"), parents=parents)
    assert (child.final.base, child.final.steps) == (PACKAGE, (Plugin("git"), shell("x")))


@pytest.mark.parametrize(
    ("text", "definition", "code", "words"),
    [
        ("extends: other:1", {}, "extends-not-found", "did you mean base:1?"),
        ("extends: base:1", None, "extends-invalid", "from: base:1"),
        ("extends: base:1", {"stages": 1}, "extends-invalid", "not a definition"),
        (
            "extends: base:1\nconfig: {env: {A: null}}",
            loads(BASE.encode()).to_json(),
            "extends-invalid",
            f"config.env.A is in the image of {PACKAGE}: null cannot take it out",
        ),
    ],
)
def test_a_package_that_cannot_be_extended(
    write: Any, text: str, definition: dict[str, Any] | None, code: str, words: str
) -> None:
    error = refused(write(child=f"{NAMED}{text}\n"), parents=packages(definition))
    assert [one.code for one in error.problems] == [code]
    assert words in error.message


def test_where_each_value_came_from(write: Any) -> None:
    parents = packages(loads(BASE.encode()).to_json())
    write(mid=HEAD + "extends: base:1\nargs: {V: x}\nsteps:\n  - run: echo ${{ args.V }}\n")
    resolved = load_resolved(
        write(child=NAMED + "extends: ./mid\nresources: {pids: 7}\n"), parents=parents, arguments={"V": "no"}
    )
    shown = {
        line.partition("#")[0].strip(): line.partition("# ")[2] for line in resolved.to_yaml().splitlines()
    }
    assert shown["name: it"] == "child:3"
    assert shown["pids: 7"] == "child:5"
    assert shown["cpu: 1.5"] == PACKAGE
    assert shown["- run: echo no"] == "mid:6 with args.V"
    origins = resolved.to_json()["origins"]
    assert origins["/steps/0/run"] == "mid:6 with args.V"
    assert origins["/from"] == PACKAGE
    assert loads(resolved.to_yaml().encode()).to_json() == resolved.definition.to_json()
