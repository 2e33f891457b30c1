"""Digests are remembered for files that surely have not changed, and for no others."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from aos.build.context.digests import FileDigests, Identity, identity_of
from aos.build.context.files import ContextTree
from aos.errors import Conflict, PermissionDenied

LATER = 10**10
"""Nanoseconds that a build begins after the files were written."""


@pytest.fixture
def context(tmp_path: Path) -> ContextTree:
    root = tmp_path / "context"
    root.mkdir()
    for number in range(5):
        (root / f"f{number}").write_text(f"{number}")
    return ContextTree(root)


def _files(context: ContextTree) -> list[tuple[str, Identity]]:
    return [(path.name, identity_of(path.lstat())) for path in sorted(context.root.iterdir())]


def _now(context: ContextTree) -> int:
    """By the clock of the file system."""
    return max(identity[4] for _, identity in _files(context))


def _build(context: ContextTree, memory: Path, began_ns: int) -> list[str]:
    """Read what must be read; the names of the files that were."""
    digests = FileDigests(memory, began_ns)
    files = _files(context)
    missing = [(name, identity) for name, identity in files if not digests.get(identity)]
    digests.read(context, missing)
    for name, identity in files:
        assert digests.get(identity) == hashlib.sha256((context.root / name).read_bytes()).hexdigest(), name
    digests.save()
    return [name for name, _ in missing]


def test_an_unchanged_file_is_not_read_again(context: ContextTree, tmp_path: Path) -> None:
    memory, began = tmp_path / "d/x", _now(context) + LATER
    assert len(_build(context, memory, began)) == 5
    assert _build(context, memory, began) == []
    (context.root / "f1").write_text("9")  # as long as before
    assert _build(context, memory, began) == ["f1"]
    (context.root / "f2").chmod(0o700)
    assert _build(context, memory, began) == ["f2"]
    assert _build(context, memory, began) == []


def test_a_change_that_restores_size_and_date_is_seen(context: ContextTree, tmp_path: Path) -> None:
    memory, file = tmp_path / "x", context.root / "f3"
    _build(context, memory, _now(context) + LATER)
    before = file.stat()
    file.write_text("!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert _build(context, memory, _now(context) + LATER) == ["f3"]


@pytest.mark.parametrize(
    ("left_alone_ns", "trusted"), [(-1, False), (0, False), (10_000_000, False), (30_000_000, True)]
)
def test_a_file_written_just_before_the_build_is_not_trusted(
    context: ContextTree, tmp_path: Path, left_alone_ns: int, trusted: bool
) -> None:
    memory, began = tmp_path / "x", _now(context) + left_alone_ns
    _build(context, memory, began)
    newest = max(_files(context), key=lambda file: file[1][4])[0]
    assert (newest not in _build(context, memory, began)) is trusted


def test_a_file_system_that_keeps_whole_seconds_needs_more_distance() -> None:
    second = 1_700_000_000_000_000_000
    assert not FileDigests(None, second + 10**9).is_settled((1, 2, 3, second, second))
    assert FileDigests(None, second + 10**9).is_settled((1, 2, 3, second, second + 4_000_000))
    assert FileDigests(None, second + 3 * 10**9).is_settled((1, 2, 3, second, second))


@pytest.mark.parametrize("damage", ["cut", "flip", "other", "empty", "directory", "short"])
def test_a_damaged_memory_counts_as_empty(context: ContextTree, tmp_path: Path, damage: str) -> None:
    memory, began = tmp_path / "d/x", _now(context) + LATER
    _build(context, memory, began)
    data = memory.read_bytes()
    memory.unlink()
    if damage == "directory":
        memory.mkdir()
    else:
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        texts = {
            "cut": data[:-5],
            "flip": flipped,
            "other": b"something else",
            "empty": b"",
            "short": data[:30],
        }
        memory.write_bytes(texts[damage])
    assert len(_build(context, memory, began)) == 5
    assert _build(context, memory, began) == ([] if damage != "directory" else [f"f{n}" for n in range(5)])


def test_nothing_grows_without_bound(
    context: ContextTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = _now(context) + LATER
    for number in range(70):
        _build(context, tmp_path / f"d/{number}", began)
    assert len(list((tmp_path / "d").iterdir())) == 64
    monkeypatch.setattr("aos.build.context.digests._MOST_FILES", 3)
    _build(context, tmp_path / "small", began)
    assert len(_build(context, tmp_path / "small", began)) == 2


def test_files_of_another_stage_are_kept_and_forgotten_in_the_end(
    context: ContextTree, tmp_path: Path
) -> None:
    memory, began = tmp_path / "x", _now(context) + LATER
    _build(context, memory, began)
    first = _files(context)
    for name, _ in first:
        (context.root / name).rename(tmp_path / name)
    (context.root / "new").write_text("x")
    began = _now(context) + LATER
    _build(context, memory, began)
    digests = FileDigests(memory, began)
    assert all(digests.get(identity) for name, identity in first if name != "f0"), (
        "another Agentfile's, perhaps"
    )


def test_builds_at_the_same_time_do_not_disturb_each_other(context: ContextTree, tmp_path: Path) -> None:
    memory, began = tmp_path / "d/x", _now(context) + LATER
    for _ in range(10):
        memory.unlink(missing_ok=True)
        threads = [threading.Thread(target=_build, args=(context, memory, began)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert _build(context, memory, began) == []


def test_a_memory_that_cannot_be_written_forbids_nothing(context: ContextTree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    assert len(_build(context, tmp_path / "file/x", _now(context) + LATER)) == 5


def test_large_files_are_read_in_threads_with_the_same_result(context: ContextTree, tmp_path: Path) -> None:
    for number in range(12):
        (context.root / f"big{number}").write_bytes(os.urandom(1 << 20))
    assert len(_build(context, tmp_path / "x", _now(context) + LATER)) == 17


@pytest.mark.parametrize("size", [2, 200_000, 9 << 20])
def test_a_file_that_changes_while_it_is_read_is_named(context: ContextTree, size: int) -> None:
    file = context.root / "f0"
    file.write_bytes(bytes(size))
    files = _files(context)
    for change in (
        lambda: file.write_bytes(bytes(size + 1)),
        lambda: file.write_bytes(b"x" * size),
        file.unlink,
    ):
        files = _files(context)
        change()
        with pytest.raises(Conflict, match="'f0' changed while it was read"):
            FileDigests().read(context, files)


@pytest.mark.root
def test_a_file_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as directory:
        context = ContextTree(Path(directory))
        context.root.chmod(0o755)
        (context.root / "secret").write_text("x")
        (context.root / "secret").chmod(0)
        files = _files(context)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionDenied, match="cannot read 'secret'"):
                FileDigests().read(context, files)
        finally:
            os.seteuid(0)


def test_looking_ten_thousand_files_up_is_quick(tmp_path: Path) -> None:
    """0.02 s where this was written."""
    context = ContextTree(tmp_path)
    digests = FileDigests(tmp_path / "x", LATER)
    (tmp_path / "f").write_text("x")
    one = identity_of((tmp_path / "f").lstat())
    digests.read(context, [("f", one)])
    digest = digests.get(one)
    for inode in range(10_000):
        digests._used[(1, inode, 1, 1, 1)] = digest
    digests._new = True
    digests.save()
    began = time.perf_counter()
    again = FileDigests(tmp_path / "x", LATER)
    assert all(again.get((1, inode, 1, 1, 1)) == digest for inode in range(10_000))
    assert time.perf_counter() - began < 0.5
