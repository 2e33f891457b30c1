"""Adopting the directory that a layer was made of: whole or not at all, beside others who want the same."""

from __future__ import annotations

import ctypes
import fcntl
from typing import TYPE_CHECKING

import pytest

from aos.build.layers.commit import write_layer
from aos.content.gc import collect
from aos.content.protocol import IdMap
from aos.content.store import ContentStore

if TYPE_CHECKING:
    from pathlib import Path

    from aos.oci.layer import Layer


def _tree(directory: Path) -> Path:
    directory.mkdir()
    (directory / "file").write_text("x")
    return directory


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


@pytest.fixture
def layer(content: ContentStore, tmp_path: Path) -> Layer:
    return write_layer(_tree(tmp_path / "upper"), content.blobs, epoch=0)


def test_the_directory_becomes_the_snapshot(content: ContentStore, layer: Layer, tmp_path: Path) -> None:
    inode = (tmp_path / "upper/file").stat().st_ino
    content.snapshots.adopt(layer, tmp_path / "upper")
    [tree] = ContentStore(tmp_path / "content").snapshots.ensure([layer], IdMap.identity())
    assert (tree / "file").stat().st_ino == inode
    assert not (tmp_path / "upper").exists()


def test_a_second_one_is_left_where_it_is(content: ContentStore, layer: Layer, tmp_path: Path) -> None:
    content.snapshots.adopt(layer, tmp_path / "upper")
    content.snapshots.adopt(layer, _tree(tmp_path / "again"))
    assert (tmp_path / "again/file").exists()


def test_nobody_waits_for_somebody_who_unpacks_the_same(
    content: ContentStore, layer: Layer, tmp_path: Path
) -> None:
    [tree] = content.snapshots.ensure([layer], IdMap.identity())
    tree.rename(tmp_path / "elsewhere")
    with (tmp_path / f"content/snapshots.of/{tree.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content.snapshots.adopt(layer, tmp_path / "upper")
    assert (tmp_path / "upper/file").exists()


def test_one_that_nothing_reaches_is_collected(content: ContentStore, layer: Layer, tmp_path: Path) -> None:
    content.snapshots.adopt(layer, tmp_path / "upper")
    kept = collect(content, lambda: [layer.digest], lambda _: ())
    assert (kept.blobs, kept.snapshots) == (0, 0)
    gone = collect(content, lambda: [], lambda _: ())
    assert (gone.blobs, gone.snapshots) == (1, 1)
    assert list((tmp_path / "content/snapshots").iterdir()) == []


@pytest.mark.root
def test_a_directory_on_another_file_system_is_unpacked_later(
    content: ContentStore, layer: Layer, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", bytes(tmp_path / "disk"), b"tmpfs", 0, b"size=1m") == 0
    try:
        content.snapshots.adopt(layer, _tree(tmp_path / "disk/upper"))
        assert (tmp_path / "disk/upper/file").exists()
    finally:
        assert libc.umount2(bytes(tmp_path / "disk"), 0) == 0
    [tree] = content.snapshots.ensure([layer], IdMap.identity())
    assert (tree / "file").read_text() == "x"
