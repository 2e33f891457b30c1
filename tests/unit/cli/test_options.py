from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.cli._options import OUTPUT, Option, Verb, nearest, parse
from aos.errors import InvalidArgument

RUN = Verb(
    "Run",
    "REFERENCE ARGS...",
    options=(
        Option("detach", "d"),
        Option("interactive", "i"),
        Option("tty", "t"),
        Option("env", "e", "KEY=VALUE", repeat=True),
        Option("name", "n", "NAME"),
        Option("time", "", "SECONDS", default="10"),
        Option("restart", "", "POLICY", choices=("never", "on-failure")),
    ),
    stop_at_first_positional=True,
)
LIST = Verb("List", "NAME?", options=(Option("all", "a"), Option("file", "f", "FILE"), OUTPUT))


def test_defaults() -> None:
    args = parse(RUN, ["image"])
    assert args == {
        "reference": "image",
        "args": [],
        "detach": False,
        "interactive": False,
        "tty": False,
        "env": [],
        "name": None,
        "time": "10",
        "restart": None,
        "help": False,
        "debug": False,
    }


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["-it", "x"], "tty", True),
        (["-it", "x"], "interactive", True),
        (["--name=web", "x"], "name", "web"),
        (["--name=", "x"], "name", ""),
        (["--name", "web", "x"], "name", "web"),
        (["-nweb", "x"], "name", "web"),
        (["-n=web", "x"], "name", "web"),
        (["-n", "web", "x"], "name", "web"),
        (["-itnweb", "x"], "name", "web"),
        (["-n", "-x", "x"], "name", "-x"),
        (["--name=a=b", "x"], "name", "a=b"),
        (["--tty=true", "x"], "tty", True),
        (["--tty=false", "x"], "tty", False),
        (["-e", "A=1", "-eB=2", "--env=C=3", "x"], "env", ["A=1", "B=2", "C=3"]),
        (["--name", "a", "--name", "b", "x"], "name", "b"),
        (["--", "-x"], "reference", "-x"),
        (["-", "a"], "reference", "-"),
        (["x", "-d", "--name", "y", "--"], "args", ["-d", "--name", "y", "--"]),
        (["x", "--", "-d"], "args", ["--", "-d"]),
        (["--restart", "on-failure", "x"], "restart", "on-failure"),
    ],
)
def test_forms(words: list[str], name: str, value: object) -> None:
    assert parse(RUN, words)[name] == value


def test_options_after_positionals_unless_the_rest_is_somebody_elses() -> None:
    assert parse(LIST, ["name", "-a"])["all"] is True
    assert parse(RUN, ["name", "-d"])["detach"] is False


@pytest.mark.parametrize(
    ("verb", "words", "message", "hint"),
    [
        (RUN, ["--nmae", "x"], "unknown option --nmae", "did you mean --name?"),
        (RUN, ["-x"], "unknown option -x", None),
        (RUN, ["-ix"], "unknown option -x in -ix", None),
        (RUN, ["--name"], "option --name needs a value: --name NAME", None),
        (RUN, ["-n"], "option -n needs a value: -n NAME", None),
        (RUN, ["--tty=yes", "x"], "option --tty is a flag and takes no value, not 'yes'", None),
        (RUN, ["--restart", "always"], "option --restart must be never or on-failure, not 'always'", None),
        (
            RUN,
            ["--restart", "nevr"],
            "option --restart must be never or on-failure, not 'nevr'",
            "did you mean never?",
        ),
        (RUN, [], "REFERENCE is missing", None),
        (LIST, ["a", "b"], "unexpected argument 'b'", None),
        (LIST, ["-o", "yaml"], "option -o must be table or json, not 'yaml'", None),
        (Verb("", "AGENT+"), [], "AGENT is missing", None),
    ],
)
def test_wrong(verb: Verb, words: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(verb, words)
    assert caught.value.code == "usage"
    assert caught.value.message == message
    assert caught.value.hint == hint


def test_one_dash_for_a_long_option_is_understood_in_the_hint() -> None:
    verb = Verb("", options=(Option("follow"),))
    with pytest.raises(InvalidArgument) as caught:
        parse(verb, ["-follow"])
    assert caught.value.hint == "did you mean --follow?"


def test_help_needs_no_positionals() -> None:
    assert parse(RUN, ["--help"])["help"] is True


def test_rest() -> None:
    assert parse(Verb("", "AGENT+"), ["a", "b"])["agent"] == ["a", "b"]
    assert parse(Verb("", "AGENT..."), [])["agent"] == []
    assert parse(Verb("", "SOURCE TARGET?"), ["a"]) | {"help": 0} == {
        "source": "a",
        "target": None,
        "help": 0,
        "debug": False,
    }


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("rnu", "run"),
        ("stp", "stop"),
        ("pss", "ps"),
        ("inspcet", "inspect"),
        ("comp", "completion"),
        ("zzz", ""),
    ],
)
def test_nearest(word: str, meant: str) -> None:
    assert nearest(word, ["run", "stop", "ps", "inspect", "completion", "rm"]) == meant


@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_command_line_is_parsed_or_refused(words: list[str]) -> None:
    try:
        args = parse(RUN, words)
    except InvalidArgument as error:
        assert error.code == "usage"
    else:
        assert args["help"] or args["reference"] in words


@given(st.lists(st.text(max_size=5), max_size=5))
def test_what_follows_the_first_positional_is_kept_as_it_is(rest: list[str]) -> None:
    assert parse(RUN, ["-d", "image", *rest])["args"] == rest


@given(st.text(), st.text(max_size=20))
def test_values_are_kept_as_they_are(name: str, entry: str) -> None:
    args = parse(RUN, [f"--name={name}", "-e", entry, "image"])
    assert (args["name"], args["env"]) == (name, [entry])


def test_an_option_that_repeats_may_stand_alone() -> None:
    verb = Verb(
        "v",
        "CONTEXT?",
        options=(Option("upgrade", metavar="NAME", repeat=True, implied="*"), Option("check")),
    )
    assert parse(verb, ["--upgrade"])["upgrade"] == ["*"]
    assert parse(verb, ["--upgrade", "--check"])["upgrade"] == ["*"]
    both = parse(verb, ["--upgrade", "a", "--upgrade=b", "here"])
    assert (both["upgrade"], both["context"]) == (["a", "b"], "here")
