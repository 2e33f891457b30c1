"""Completion scripts, asked as the shells ask them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from aos.cli.main import SUMMARIES, main

if TYPE_CHECKING:
    from pathlib import Path


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def complete(words: list[str], text: str, directory: Path) -> set[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'{text}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _aos; printf "%s\\n" "${{COMPREPLY[@]}}"',
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=directory,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = script("bash", capsys)
    (tmp_path / "Agentfile").touch()
    assert complete(["aos", ""], text, tmp_path) >= set(SUMMARIES)
    assert complete(["aos", "in"], text, tmp_path) == {"init", "inspect"}
    assert complete(["aos", "run", "--net"], text, tmp_path) == {"--network"}
    assert complete(["aos", "ps", "--output", ""], text, tmp_path) == {"table", "json"}
    assert complete(["aos", "ps", "-o", "j"], text, tmp_path) == {"json"}
    assert complete(["aos", "node", ""], text, tmp_path) >= {"start", "stop", "status", "restart"}
    assert complete(["aos", "node", "status", "-o", ""], text, tmp_path) == {"table", "json"}
    assert complete(["aos", "help", "ve"], text, tmp_path) == {"verify", "version"}
    assert complete(["aos", "completion", ""], text, tmp_path) >= {"bash", "zsh", "fish"}
    assert "Agentfile" in complete(["aos", "build", "-f", "A"], text, tmp_path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_read_them(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = script(shell, capsys)
    assert all(name in text for name in SUMMARIES)
    if shutil.which(shell) is None:
        pytest.skip(f"missing: {shell}")
    (tmp_path / "script").write_text(text)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_names_of_agents_never_start_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOS_ROOT", str(tmp_path / "r"))
    monkeypatch.setenv("AOS_STATE", str(tmp_path / "s"))
    assert main(["completion", "agents"]) == 1
    assert list(tmp_path.iterdir()) == []
