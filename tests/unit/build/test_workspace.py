"""Work directories are tied to their builds; solving is tied to the first failure."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from aos.build.workspace.workspace import dead_workspaces, open_workspace

if TYPE_CHECKING:
    from pathlib import Path


def test_a_workspace_ends_with_its_block(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(ZeroDivisionError), open_workspace(work, "abc") as workspace:
        first, second = workspace.fresh("upper"), workspace.fresh("upper")
        assert first != second
        (first / "file").write_text("x")
        with dead_workspaces(work) as dead:
            assert dead == [], "it lives"
        raise ZeroDivisionError
    assert list(work.iterdir()) == []


def _die_inside(work: Path, ready: threading.Event) -> None:
    with open_workspace(work, "dead") as workspace:
        (workspace.fresh("upper") / "file").write_text("x")
        ready.set()
        threading.Event().wait()


def test_a_dead_builds_workspace_is_found_and_removed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_die_inside, args=(tmp_path, ready))
    process.start()
    assert ready.wait(10)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(ZeroDivisionError), dead_workspaces(tmp_path) as dead:
        assert dead == ["dead"]
        raise ZeroDivisionError
    assert (tmp_path / "dead").exists(), "kept until what belongs to it could be removed"
    with dead_workspaces(tmp_path) as dead:
        assert dead == ["dead"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_build_could_not_delete_is_for_the_next_sweep(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "it") as workspace:
        workspace.left = True
    with dead_workspaces(tmp_path) as dead:
        assert dead == ["it"]
    assert list(tmp_path.iterdir()) == []
