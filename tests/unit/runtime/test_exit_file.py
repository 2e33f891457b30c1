"""conmon's exit file while conmon writes it: beside it are temporary files that are gone when they are opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aos.runtime.backends.oci.conmon import decode_exit, read_exit_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["exit", "4b1d-1"])
def test_a_name_that_is_gone_hides_no_exit(tmp_path: Path, name: str) -> None:
    """It writes `exit` and `<id>`, each under a temporary name first: what is listed may be renamed by now."""
    directory = tmp_path / "exit"
    directory.mkdir()
    for number in range(50):
        (directory / f"4b1d-1.{number:06}").symlink_to("renamed")
    assert read_exit_file(tmp_path) is None
    (directory / name).write_text("74")
    read = read_exit_file(tmp_path)
    assert read is not None
    assert read[0] == 74


def test_what_is_not_renamed_yet_is_no_exit(tmp_path: Path) -> None:
    (tmp_path / "exit").mkdir()
    (tmp_path / "exit/exit.A1B2C3").write_text("7")
    assert read_exit_file(tmp_path) is None


def test_nothing_was_written(tmp_path: Path) -> None:
    assert read_exit_file(tmp_path) is None


def test_codes_and_signals() -> None:
    assert [decode_exit(number) for number in (0, 74, 137, 255)] == [
        (0, None),
        (74, None),
        (None, 9),
        (255, None),
    ]
