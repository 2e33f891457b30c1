"""The command as a whole, in this process: verbs found, errors in words, exit codes."""

from __future__ import annotations

import errno
import importlib
import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from aos.cli import main as command
from aos.cli._options import OUTPUT, Verb
from aos.cli.main import AGENT_STATUS, LIGHT, SUMMARIES, main
from aos.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make `aos ps` (or another verb) do something else."""

    def make(raised: BaseException | None = None, name: str = "ps", code: int = 0) -> None:
        def function(_: object) -> int:
            if raised is not None:
                raise raised
            return code

        module: Any = ModuleType(f"aos.cli.{name}")
        module.VERB, module.main = Verb("Test", "ARGS...", options=(OUTPUT,)), function
        monkeypatch.setitem(sys.modules, f"aos.cli.{name}", module)

    return make


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"], ["--debug", "help"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in SUMMARIES)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_verb_has_help_that_fits_and_a_summary_in_the_overview(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: aos {name}")
    assert max(map(len, out.splitlines())) <= 80
    assert main(["help", name]) == 0
    assert capsys.readouterr().out == out
    group = getattr(importlib.import_module(f"aos.cli.{name}"), "VERBS", {})
    for inner in filter(None, group):
        assert main([name, inner, "--help"]) == 0
        inside = capsys.readouterr().out
        assert inside.startswith(f"Usage: aos {name} {inner}")
        assert main(["help", name, inner]) == 0
        assert capsys.readouterr().out == inside


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "aos: unknown verb 'rnu'\nhint: did you mean aos run?\n"),
        (["frobnicate"], "aos: unknown verb 'frobnicate'\nhint: aos --help shows all verbs\n"),
        (["--frob"], "aos: unknown option --frob\nhint: aos --help shows all verbs\n"),
        (["help", "rnu"], "aos help: unknown verb 'rnu'\nhint: did you mean aos run?\n"),
        (["ps", "--al"], "aos ps: unknown option --al\nhint: did you mean --all?\n"),
        (["ps", "extra"], "aos ps: unexpected argument 'extra'\nhint: aos ps --help shows how\n"),
        (["packages", "lss"], "aos: unknown verb 'packages lss'\nhint: did you mean aos packages ls?\n"),
        (
            ["completion", "bsh"],
            "aos completion: no completion for 'bsh': there is bash, zsh, fish\nhint: did you mean bash?\n",
        ),
    ],
)
def test_wrong_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("name", sorted(AGENT_STATUS))
def test_wrong_usage_where_the_exit_code_is_the_agents(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--frob"]) == 125
    assert "unknown option --frob" in capsys.readouterr().err


def test_an_error_of_ours(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(NotFound("no agent web", code="agent-not-found", hint="aos ps -a lists them"))
    assert main(["ps"]) == 3
    assert capsys.readouterr() == ("", "aos ps: no agent web\nhint: aos ps -a lists them\n")


@pytest.mark.parametrize("words", [["-o", "json"], ["-ojson"], ["--output=json"], ["--output", "json"]])
def test_errors_are_json_where_json_is_asked_for(
    words: list[str], verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(NotFound("no agent web", code="agent-not-found", hint="look", agent="web"))
    assert main(["ps", *words]) == 3
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "kind": "NotFound",
            "code": "agent-not-found",
            "message": "no agent web",
            "hint": "look",
            "subject": {"agent": "web"},
        },
        "exit_code": 3,
    }
    assert main(["ps", *words, "--frob"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no package"), 125),
        (InvalidArgument("bad"), 125),
        (FailedPrecondition("not there", code="entrypoint-not-found", exit_status=127), 127),
        (FailedPrecondition("not allowed", code="entrypoint-not-found", exit_status=126), 126),
        (OSError(errno.EIO, "input/output error"), 125),
        (RuntimeError("oops"), 125),
    ],
)
@pytest.mark.parametrize("name", ["run", "exec"])
def test_run_and_exec_keep_their_own_failures_apart(
    name: str, error: Exception, code: int, verb: Callable[..., None]
) -> None:
    verb(error, name)
    assert main([name, "x"]) == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            8,
            "aos ps: /x: No space left on device\nhint: make room",
        ),
        (OSError(errno.EMFILE, "Too many open files"), 8, "aos ps: Too many open files\nhint: the system"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            6,
            "aos ps: /x: Permission denied\nhint: run it as",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/x"),
            3,
            "aos ps: /x: No such file\nhint: check the path",
        ),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            11,
            "aos ps: Connection refused\nhint: try",
        ),
        (
            OSError(errno.EIO, "Input/output error", "/x"),
            5,
            "aos ps: /x: Input/output error\nhint: aos doctor",
        ),
        (
            ValueError("oops"),
            1,
            "aos ps: this is a defect of aos: ValueError: oops\nhint: run it again with AOS_DEBUG=1",
        ),
    ],
)
def test_other_errors_in_words(
    error: Exception, code: int, said: str, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(error)
    assert main(["ps"]) == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["--debug", "ps"], ["ps", "--debug"]])
def test_debug_shows_where(
    words: list[str], verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(ValueError("oops"))
    assert main(words) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupted_and_left(verb: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(KeyboardInterrupt())
    assert main(["ps"]) == 130
    verb(SystemExit(143))
    assert main(["ps"]) == 143
    assert capsys.readouterr() == ("", "")


def test_the_verbs_code_is_ours(verb: Callable[..., None]) -> None:
    verb(code=42)
    assert main(["ps"]) == 42


def test_light_verbs_exist() -> None:
    assert set(SUMMARIES) >= LIGHT
    assert command.find(["version"])[0] == "version"


def test_what_an_error_quotes_does_nothing_to_the_terminal(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(InvalidArgument("no \x1b]0;title\x07 ñ\r\nand\t2\udce4", code="usage", hint="\x9b2J"))
    assert main(["ps"]) == 2
    shown = capsys.readouterr().err
    assert shown == "aos ps: no \ufffd]0;title\ufffd ñ\ufffd\nand\t2\ufffd\nhint: \ufffd2J\n"
