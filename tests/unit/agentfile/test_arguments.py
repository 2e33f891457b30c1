"""Build arguments: where they are put, where not, and what is wrong with them."""

from __future__ import annotations

import pytest

from aos.agentfile import AgentfileError, build_arguments, loads
from aos.agentfile.definition import Copy, Definition, Plugin, Run
from aos.errors import InvalidArgument

HEAD = "apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: it, version: 1.0.0}\n"


def read(text: str, **arguments: str | None) -> Definition:
    return loads((HEAD + text).encode(), arguments=arguments)


def problems(text: str, **arguments: str | None) -> list[tuple[int, int, str, str]]:
    with pytest.raises(AgentfileError) as refused:
        read(text, **arguments)
    return [(one.line, one.column, one.code, f"{one.message}; {one.hint}") for one in refused.value.problems]


def test_they_are_put_into_every_text_of_the_stages_and_settings() -> None:
    text = (
        HEAD.replace("1.0.0}", '"${{ args.V }}", description: "v${{args.V}}", labels: {v: "${{ args.V }}"}}')
        + """
args: {V: 1.2.3, BASE: , N: "8080"}
stages:
  - name: tools
    from: "${{ args.BASE }}"
    steps: [{plugin: {name: debian, with: {include: ["py-${{ args.V }}"]}}}]
from: tools
steps:
  - run: echo ${{ args.V }} ${V} $V $${{ args.V }}
  - copy: {src: "a-${{ args.V }}", dest: /a/, mode: "0${{ args.N }}"}
  - run: echo plain
config: {env: {PORT: "${{ args.N }}"}, workDir: "/${{ args.V }}"}
entrypoint: {command: ["x${{ args.N }}"], args: ["${{ args.N }}"]}
"""
    )
    definition = loads(text.replace("0${{ args.N }}", "0755").encode(), arguments={"BASE": "debian:12"})
    tools, final = definition.stages
    assert tools.base == "debian:12"
    assert tools.steps == (Plugin("debian", (("include", ["py-1.2.3"]),)),)
    assert final.steps == (
        Run(("/bin/sh", "-c", "echo 1.2.3 ${V} $V ${{ args.V }}")),
        Copy(("a-1.2.3",), "/a/", mode=0o755),
        Run(("/bin/sh", "-c", "echo plain")),
    )
    metadata = definition.metadata
    assert (metadata.version, metadata.description, metadata.labels) == ("1.2.3", "v1.2.3", (("v", "1.2.3"),))
    assert (definition.config.env, definition.config.work_dir) == ((("PORT", "8080"),), "/1.2.3")
    assert (definition.entrypoint.command, definition.entrypoint.args) == (("x8080",), ("8080",))


def test_each_step_knows_the_arguments_it_names_and_the_definition_does_not() -> None:
    text = 'args: {A: "1", B: "2"}\nfrom: "b:${{ args.B }}"\nsteps: [run: "${{ args.B }}${{ args.A }}", run: x]\n'
    one, other = read(text, B="3"), read(text.replace("${{ args.B }}${{ args.A }}", "31"), B="3")
    assert one.final.arguments == ((("A", "1"), ("B", "3")), ())
    assert one.final.base_arguments == (("B", "3"),)
    assert other.final.arguments == ((), ())
    assert one.to_json() == other.to_json()


@pytest.mark.parametrize("value", ["no", "1:30", "null", "[a]", "{", "${{ args.A }}", "$${{", "\n- x", "ä"])
def test_a_value_is_a_string_whatever_it_looks_like(value: str) -> None:
    definition = read('args: {A: }\nfrom: scratch\nsteps: [run: [echo, "${{ args.A }}"]]\n', A=value)
    assert definition.final.steps == (Run(("echo", value)),)


def test_a_value_that_a_field_does_not_take_is_told_at_the_use() -> None:
    found = problems(
        'args: {A: }\nfrom: scratch\nsteps: [run: {command: x, network: "${{ args.A }}"}]\n', A="no"
    )
    assert [one[:2] for one in found] == [(6, 36)]


@pytest.mark.parametrize(
    ("text", "given", "place", "code", "words"),
    [
        (
            "from: scratch\nsteps: [run: '${{ args.A }}']",
            {},
            (5, 14),
            "unknown-argument",
            "declares: nothing",
        ),
        (
            "args: {VERSION: a}\nfrom: '${{ args.VERSIN }}'",
            {},
            (5, 7),
            "unknown-argument",
            "did you mean 'VERSION'?",
        ),
        (
            "args: {A: }\nfrom: '${{ args.A }}${{ args.A }}'",
            {},
            (4, 11),
            "missing-argument",
            "--build-arg A=",
        ),
        ("args: {A: }\nfrom: '${{ args.A }}'", {"A": None}, (4, 11), "missing-argument", "has no value"),
        ("from: scratch\nsteps: [run: '${{ A }}']", {}, (5, 14), "malformed-argument", "${{ args.NAME }}"),
        ("from: scratch\nsteps: [run: '${{ args.A']", {}, (5, 14), "malformed-argument", "does not begin"),
        ("from: scratch\nsteps: [run: '${{ args.A-B }}']", {}, (5, 14), "malformed-argument", "$${{"),
        (
            "from: scratch\nresources: {memory: '${{ args.A }}'}",
            {},
            (5, 21),
            "malformed-argument",
            "cannot be",
        ),
        (
            "args: {A: '${{ args.B }}'}\nfrom: scratch",
            {},
            (4, 11),
            "malformed-argument",
            "cannot be used here",
        ),
        (
            "from: scratch\nconfig: {env: {'${{ args.A }}': x}}",
            {},
            (5, 16),
            "malformed-argument",
            "cannot be",
        ),
        ("args: {A: 8080}\nfrom: scratch", {}, (4, 11), "wrong-type", 'quote it: "8080"'),
        ("args: {1A: x}\nfrom: scratch", {}, (4, 12), "agentfile-invalid", "cannot name a build argument"),
        ("args: [A]\nfrom: scratch", {}, (4, 7), "agentfile-invalid", "must be a mapping"),
        ("args: {AB: x}\nfrom: scratch", {"BA": "1"}, (4, 7), "unknown-argument", "--build-arg BA"),
        ("from: scratch", {"A": None}, (1, 1), "unknown-argument", "declares: nothing"),
        (
            "from: scratch\nsteps: [run: ${{ args.A }}]",
            {},
            (5, 15),
            "agentfile-syntax",
            "quote values that hold",
        ),
    ],
)
def test_a_mistake_is_told_in_its_place(
    text: str, given: dict[str, str | None], place: tuple[int, int], code: str, words: str
) -> None:
    found = problems(text, **given)
    assert any((*place, code) == one[:3] and words in one[3] for one in found), found


def test_a_missing_value_is_told_once_and_only_when_it_is_used() -> None:
    assert read("args: {A: }\nfrom: scratch\n").final.base == "scratch"
    found = problems('args: {A: }\nfrom: "${{ args.A }}"\nsteps: [run: "${{ args.A }}"]\n')
    assert [one[2] for one in found].count("missing-argument") == 1


def test_what_build_arg_means() -> None:
    words = ["A=1", "B=", "C=x=y", "D", "E", "A=2"]
    environ = {"D": "from outside", "A": "not this"}
    assert build_arguments(words, environ) == {
        "A": "2",
        "B": "",
        "C": "x=y",
        "D": "from outside",
        "E": None,
    }


@pytest.mark.parametrize("word", ["", "=x", "1A=x", "A B=c", "A-B", "A=\udcff"])
def test_a_word_that_is_no_build_argument(word: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        build_arguments([word], {})
    assert refused.value.code == "build-arg-invalid"
