"""Which date the files of a package have."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from aos.build.epoch import source_date_epoch
from aos.errors import FailedPrecondition, InvalidArgument
from fix_installation import requires

if TYPE_CHECKING:
    from pathlib import Path


def test_option_then_variable_then_0(tmp_path: Path) -> None:
    assert source_date_epoch({}, tmp_path) == 0
    assert source_date_epoch({"SOURCE_DATE_EPOCH": "7"}, tmp_path) == 7
    assert source_date_epoch({"SOURCE_DATE_EPOCH": "7"}, tmp_path, "0") == 0


@pytest.mark.parametrize("text", ["yesterday", "-1", "1.5", "²", "9" * 5000, str(8**11)])
def test_what_is_no_date(tmp_path: Path, text: str) -> None:
    for environ, asked in (({"SOURCE_DATE_EPOCH": text}, ""), ({}, text)):
        with pytest.raises(InvalidArgument) as raised:
            source_date_epoch(environ, tmp_path, asked)
        assert raised.value.code == "source-date-epoch-invalid"


def test_the_newest_commit(tmp_path: Path) -> None:
    """Of the repository, also in a directory below it, in a shallow clone, and whatever GIT_DIR leads to."""
    requires("git")
    repository, below = tmp_path / "repository", tmp_path / "repository/agent"
    below.mkdir(parents=True)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_DIR": "/nowhere"}

    def git(*words: str, date: int = 0) -> None:
        names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {"GIT_COMMITTER_DATE": f"@{date} +0545", "GIT_AUTHOR_DATE": "@5 +0000"}
        clean = {name: value for name, value in environ.items() if name != "GIT_DIR"}
        subprocess.run(["git", *words], cwd=repository, env=clean | names | dates, check=True)

    git("init", "-q")
    with pytest.raises(FailedPrecondition) as raised:
        source_date_epoch(environ, below, "git")
    assert raised.value.code == "commit-unknown"
    (below / "f").write_text("x")
    git("add", ".")
    git("commit", "-qm", "committer x <x> 1 +0000", date=1111111111)
    git("commit", "-qm", "elsewhere", "--allow-empty", date=1222222222)
    assert source_date_epoch(environ, below, "git") == 1222222222
    git("clone", "-q", "--depth", "1", f"file://{repository}", str(tmp_path / "shallow"))
    assert source_date_epoch(environ, tmp_path / "shallow", "git") == 1222222222


def test_outside_of_a_repository_nothing_is_guessed(tmp_path: Path) -> None:
    requires("git")
    environ = {"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": "/"}
    with pytest.raises(FailedPrecondition, match="not a git repository"):
        source_date_epoch(environ, tmp_path, "git")
    with pytest.raises(FailedPrecondition) as raised:
        source_date_epoch({"PATH": "/nowhere"}, tmp_path, "git")
    assert raised.value.code == "git-missing"
