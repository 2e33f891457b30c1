"""What an `install pip` reads of the context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aos.agentfile.definition import Install
from aos.build.context.files import open_context
from aos.build.context.requirements import Requirements, read_requirements
from aos.errors import AosError
from fix_build import write_context

if TYPE_CHECKING:
    from pathlib import Path


def _read(root: Path, step: Install) -> Requirements:
    return read_requirements(open_context(root), step)


def test_requirement_files_are_read_with_what_they_include(tmp_path: Path) -> None:
    root = write_context(
        tmp_path,
        {
            "r/all.txt": "# all\n-r more.txt\r\n--constraint=limits.txt\nflask >= 2  # web\n\n",
            "r/more.txt": "-rall.txt\nrich==13.0 \\\n    --hash=sha256:aa\nx @ https://host/x#sha256=1\n",
            "r/limits.txt": "idna<4\n-r https://elsewhere/r.txt\n",
        },
    )
    found = _read(root, Install("pip", ("a  >1",), requirements="r/all.txt"))
    assert sorted(found.files) == ["r/all.txt", "r/limits.txt", "r/more.txt"]
    assert found.asked == [
        "a >1",
        "rich==13.0 --hash=sha256:aa",
        "x @ https://host/x#sha256=1",
        "-c idna<4",
        "-c -r https://elsewhere/r.txt",
        "flask >= 2",
    ]


def test_comments_and_line_ends_ask_for_nothing_else(tmp_path: Path) -> None:
    one = write_context(tmp_path / "one", {"r.txt": "a==1\nb\n"})
    two = write_context(tmp_path / "two", {"r.txt": "# new\r\n a==1   # why\r\n\r\nb"})
    step = Install("pip", requirements="r.txt")
    assert _read(one, step).asked == _read(two, step).asked
    assert _read(one, step).digests != _read(two, step).digests


def test_a_project_is_its_two_files(tmp_path: Path) -> None:
    root = write_context(
        tmp_path, {"app/pyproject.toml": "[project]", "app/uv.lock": "version = 1", "app/main.py": "x"}
    )
    found = _read(root, Install("pip", project="app"))
    assert sorted(found.files) == ["app/pyproject.toml", "app/uv.lock"]
    assert [line.partition(" sha256:")[0] for line in found.asked] == ["app/pyproject.toml", "app/uv.lock"]
    assert sorted(_read(root / "app", Install("pip", project=".")).files) == ["pyproject.toml", "uv.lock"]


@pytest.mark.parametrize(
    ("step", "code", "told"),
    [
        (Install("pip", requirements="gone.txt"), "requirements-missing", "gone.txt"),
        (Install("pip", requirements="more.txt"), "requirements-missing", "not-there.txt"),
        (Install("pip", requirements="folder"), "requirements-invalid", "directory"),
        (Install("pip", project="folder"), "requirements-missing", "pyproject.toml"),
        (Install("pip", project="."), "requirements-missing", "uv.lock"),
        (Install("pip", requirements="../outside"), "path-escapes", "outside"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, step: Install, code: str, told: str) -> None:
    root = write_context(
        tmp_path, {"more.txt": "-r not-there.txt\n", "folder/x": "", "pyproject.toml": "[project]"}
    )
    with pytest.raises(AosError, match=told) as caught:
        _read(root, step)
    assert caught.value.code == code
