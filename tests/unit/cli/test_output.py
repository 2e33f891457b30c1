from __future__ import annotations

import os
import posix
from typing import TYPE_CHECKING

import pytest

from aos.cli import _output, _records

if TYPE_CHECKING:
    from pathlib import Path


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    _output.table(("ID", "NAME"), [("1", "a"), ("22", "bell\x07\x1b[2J")])
    assert capsys.readouterr().out == "ID   NAME\n1    a\n22   bell\\x07\\x1b[2J\n"
    _output.table(("ID", "NAME"), [("3", "not UTF-8: \udcff, \ud800")])
    assert capsys.readouterr().out == "ID   NAME\n3    not UTF-8: \\xff, \\ud800\n"
    _output.table(("ID", "NAME"), [])
    assert capsys.readouterr().out == "ID   NAME\n"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1020 * 1024, "0.996 MiB"),
        (500 << 20, "500 MiB"),
        (5 << 30, "5 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_size(count: int | None, words: str) -> None:
    assert _output.size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "less than a second"),
        (0.2, "less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (7200, "2 hours"),
        (90_000, "1 day"),
        (700_000, "1 week"),
        (3_000_000, "1 month"),
        (70_000_000, "2 years"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert _output.duration(seconds) == words


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        for name in (b"NO_COLOR", b"TERM"):
            monkeypatch.setitem(posix.environ, name, b"")
        assert _output.colour("x", "red", theirs) == "\x1b[31mx\x1b[0m"
        monkeypatch.setitem(posix.environ, b"NO_COLOR", b"1")
        assert _output.colour("x", "red", theirs) == "x"
    finally:
        os.close(ours)
        os.close(theirs)
    with (tmp_path / "file").open("w") as file:
        assert _output.colour("x", "red", file.fileno()) == "x"


NOW = 1000.0
EXIT = {"cause": "exited", "code": 0, "shell_code": 0, "finished_at": 880.0, "detail": ""}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"status": "created"}, "Created"),
        ({"status": "running", "started_at": 820.0}, "Up 3 minutes"),
        ({"status": "running", "started_at": None}, "Up"),
        ({"status": "stopping", "exit": None}, "Stopping"),
        ({"status": "exited", "exit": EXIT}, "Exited (0) 2 minutes ago"),
        (
            {"status": "exited", "exit": EXIT | {"cause": "oom", "shell_code": 137}},
            "Out of memory (137) 2 minutes ago",
        ),
        ({"status": "exited", "exit": EXIT | {"cause": "lost"}}, "Lost 2 minutes ago"),
        ({"status": "exited", "exit": EXIT | {"finished_at": None}}, "Exited (0)"),
        ({"status": "restarting", "exit": EXIT | {"shell_code": 7}}, "Restarting (7) 2 minutes ago"),
    ],
)
def test_status(record: dict[str, object], words: str) -> None:
    assert _records.status(record, NOW) == words


def test_deaths_that_need_words() -> None:
    assert _records.death(EXIT) == ""
    assert _records.death(EXIT | {"cause": "oom"}) == "the agent ran out of memory"
    assert _records.death(EXIT | {"cause": "lost", "detail": "no exit file"}) == (
        "nobody knows how the agent ended: no exit file"
    )
