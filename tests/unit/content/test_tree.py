"""Trees: layers merged as overlayfs has it, and links that stay inside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from aos.build.context.files import ContextTree
from aos.content.tree import LayerTree, resolve
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path


def _layer(root: Path, files: dict[str, str]) -> Path:
    root.mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            (root / name).symlink_to(text[3:])
        else:
            (root / name).write_text(text)
    return root


def test_upper_layers_win_and_directories_merge(tmp_path: Path) -> None:
    low = _layer(tmp_path / "0", {"etc/a": "low", "etc/b": "low", "bin": "-> usr/bin", "usr/bin/sh": "x"})
    high = _layer(tmp_path / "1", {"etc/b": "high", "etc/c": "high"})
    tree = LayerTree((low, high))
    assert tree.names("") == ["bin", "etc", "usr"]
    assert tree.names("etc") == ["a", "b", "c"]
    with os.fdopen(tree.open("etc/b")) as file:
        assert file.read() == "high"
    assert tree.lstat("etc/missing") is None
    assert tree.lstat("etc/a/below-a-file") is None
    assert resolve(tree, "/bin/sh", follow_last=True) == "usr/bin/sh"


@pytest.mark.root
def test_whiteouts_and_opaque_directories_hide_what_lies_below(tmp_path: Path) -> None:
    low = _layer(tmp_path / "0", {"gone": "x", "dir/a": "x", "replaced/a": "x"})
    high = _layer(tmp_path / "1", {"dir/b": "y"})
    os.mknod(high / "gone", 0o20000, 0)
    (high / "replaced").mkdir()
    os.setxattr(high / "replaced", "trusted.overlay.opaque", b"y")
    (high / "replaced" / "new").write_text("y")
    tree = LayerTree((low, high))
    assert tree.lstat("gone") is None
    assert tree.names("") == ["dir", "replaced"]
    assert tree.names("dir") == ["a", "b"]
    assert tree.names("replaced") == ["new"]
    assert tree.lstat("replaced/a") is None


def test_a_directory_that_became_a_file_hides_its_content(tmp_path: Path) -> None:
    low = _layer(tmp_path / "0", {"x/a": "low"})
    high = _layer(tmp_path / "1", {"x": "now a file"})
    assert LayerTree((low, high)).lstat("x/a") is None


def test_links_of_an_image_are_followed_as_after_chroot(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "0", {"up": "-> ../../etc", "abs": "-> /etc", "etc/passwd": "x"})
    tree = LayerTree((layer,))
    assert resolve(tree, "up/passwd", follow_last=True) == "etc/passwd"
    assert resolve(tree, "/abs/passwd", follow_last=True) == "etc/passwd"
    assert resolve(tree, "abs", follow_last=False) == "abs"
    assert resolve(tree, "/../../etc/./new/file", follow_last=True) == "etc/new/file"


@pytest.mark.parametrize("path", ["up/passwd", "abs/passwd", "../x", "a/../../x", "chain/x"])
def test_nothing_leads_out_of_a_context(tmp_path: Path, path: str) -> None:
    context = _layer(
        tmp_path / "c", {"up": "-> ..", "abs": "-> /etc", "chain": "-> inner", "inner": "-> up", "a/f": "x"}
    )
    with pytest.raises(InvalidArgument) as caught:
        resolve(ContextTree(context), path, follow_last=True)
    assert caught.value.code == "path-escapes"


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    context = _layer(tmp_path / "c", {"a": "-> b", "b": "-> a"})
    with pytest.raises(InvalidArgument) as caught:
        resolve(ContextTree(context), "a/x", follow_last=True)
    assert caught.value.code == "too-many-links"


def test_opening_a_file_of_a_context_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    context = _layer(tmp_path / "c", {"link": "-> ../secret", "dir": "-> .."})
    tree = ContextTree(context)
    for path in ("link", "dir/secret"):
        with pytest.raises(OSError):
            tree.open(path)
