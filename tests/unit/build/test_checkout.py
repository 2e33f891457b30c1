"""Another checkout of a context: the same names and bytes, created otherwise."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from aos.build.context import checkout
from aos.build.context.checkout import another_checkout

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_says_the_same(tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "a/deep").mkdir(parents=True)
    (context / "a/deep/run.sh").write_text("#!/bin/sh\n")
    (context / "a/deep/run.sh").chmod(0o755)
    os.link(context / "a/deep/run.sh", context / "also")
    (context / "z").write_bytes(b"\0\xff")
    (context / "dangling").symlink_to("/nowhere")
    (context / os.fsdecode(b"\xff\n")).write_text("x")
    os.mkfifo(context / "pipe")
    os.utime(context / "z", (1, 1))
    copy = another_checkout(context, tmp_path / "copy")
    assert copy is not None
    names = {str(path.relative_to(context)) for path in context.rglob("*")}
    assert {str(path.relative_to(copy)) for path in copy.rglob("*")} == names - {"pipe"}
    assert (copy / "also").samefile(copy / "a/deep/run.sh")
    assert stat.S_IMODE((copy / "also").stat().st_mode) == 0o700
    assert stat.S_IMODE((copy / "z").stat().st_mode) == 0o600
    assert (copy / "z").read_bytes() == b"\0\xff"
    assert (copy / "z").stat().st_mtime != 1
    assert (copy / "dangling").readlink() == context.joinpath("dangling").readlink()


def test_a_large_context_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "context").mkdir()
    for name in "abc":
        (tmp_path / "context" / name).write_text("x")
    monkeypatch.setattr(checkout, "_ENTRIES", 2)
    assert another_checkout(tmp_path / "context", tmp_path / "copy") is None
    assert not (tmp_path / "copy").exists()
