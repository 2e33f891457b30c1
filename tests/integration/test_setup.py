"""tools/setup: says what is missing and why, installs only as root, and costs next to nothing the second time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with tools/ and stubs for what setup calls; `calls` records them."""
    (tmp_path / "tools").mkdir()
    shutil.copy2(TOOLS / "setup", tmp_path / "tools/setup")
    stub(tmp_path, "uv", "mkdir -p .venv/bin && : > .venv/bin/aos && chmod +x .venv/bin/aos")
    stub(tmp_path, "apt-get", ": > made-by-apt")
    packages(tmp_path, "run sh-package sh a shell")
    return tmp_path


def stub(checkout: Path, name: str, script: str) -> None:
    file = checkout / "stubs" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'#!/bin/sh\necho "{name} $*" >> {checkout}/calls\n{script}\n')
    file.chmod(0o755)


def packages(checkout: Path, *lines: str) -> None:
    (checkout / "tools/packages").write_text("# a comment\n" + "\n".join(lines) + "\n")


def setup(checkout: Path, *profiles: str) -> tuple[int, str, list[str]]:
    """Run it; returns the exit code, what it said, and the stubs that it called."""
    calls = checkout / "calls"
    calls.unlink(missing_ok=True)
    done = subprocess.run(
        [str(checkout / "tools/setup"), *profiles],
        env={"PATH": f"{checkout}/stubs:{os.environ['PATH']}", "HOME": str(checkout)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return (
        done.returncode,
        done.stdout + done.stderr,
        calls.read_text().splitlines() if calls.exists() else [],
    )


def test_where_all_is_there_only_the_environment_is_looked_at(checkout: Path) -> None:
    code, said, calls = setup(checkout)
    assert (code, said, calls) == (0, "", ["uv sync --quiet --frozen"])


@pytest.mark.root
def test_what_is_missing_is_named_with_its_reason_and_installed_by_root(checkout: Path) -> None:
    packages(
        checkout, "run thing-package no-such-thing holds the thing", "run file-package /no/such/file is read"
    )
    stub(checkout, "id", "echo 0")
    code, said, calls = setup(checkout)
    assert code == 0, said
    assert "missing: thing-package: holds the thing" in said
    assert "missing: file-package: is read" in said
    installs = [call for call in calls if " install " in call]
    assert len(installs) == 1
    assert installs[0].endswith("thing-package file-package")


def test_without_root_the_line_to_type_is_printed_and_nothing_is_installed(checkout: Path) -> None:
    packages(checkout, "run thing-package no-such-thing holds the thing")
    stub(checkout, "id", "echo 1000")
    code, said, calls = setup(checkout)
    assert code == 1
    assert "sudo apt-get update && sudo apt-get install --yes --no-install-recommends thing-package" in said
    assert not [call for call in calls if call.startswith("apt-get")]


def test_profiles_choose_what_is_needed(checkout: Path) -> None:
    packages(checkout, "run sh-package sh a shell", "test peer-package no-such-peer a peer")
    stub(checkout, "id", "echo 1000")
    assert setup(checkout)[0] == 0
    code, said, _ = setup(checkout, "test")
    assert code == 1
    assert "peer-package" in said


@pytest.mark.root
def test_a_failing_installation_shows_its_output(checkout: Path) -> None:
    packages(checkout, "run thing-package no-such-thing holds the thing")
    stub(checkout, "id", "echo 0")
    stub(checkout, "apt-get", "echo 'E: no route to the mirror'; exit 100")
    code, said, _ = setup(checkout)
    assert code == 1
    assert "E: no route to the mirror" in said
    assert "apt-get failed" in said


def test_a_failing_environment_says_what_is_needed(checkout: Path) -> None:
    stub(checkout, "uv", "exit 2")
    code, said, _ = setup(checkout)
    assert code == 1
    assert "Python 3.11 or later is needed" in said


def test_every_line_of_the_real_list_is_whole() -> None:
    for line in (TOOLS / "packages").read_text().splitlines():
        if not line.startswith("#"):
            profile, package, probe, why = line.split(maxsplit=3)
            assert profile in ("run", "demo", "test")
            assert package
            assert probe
            assert len(why) > 10
