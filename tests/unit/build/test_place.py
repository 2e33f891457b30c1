"""Where a copy puts things: the rules of COPY, without writing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aos.build.context.files import ContextTree
from aos.build.context.select import select
from aos.build.steps.place import Placed, place
from aos.content.tree import LayerTree
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def context(tmp_path: Path) -> ContextTree:
    root = tmp_path / "context"
    for name in (
        "app/main.py",
        "app/lib/a.py",
        "one.txt",
        "two.txt",
        "tree/etc/x",
        "other/lib/a.py",
        "other/lib/b.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty").mkdir()
    (root / "link").symlink_to("app")
    return ContextTree(root)


@pytest.fixture
def below(tmp_path: Path) -> LayerTree:
    root = tmp_path / "image"
    for name in ("usr/lib/x", "etc/passwd", "data/in/f", "file"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "lib").symlink_to("usr/lib")
    (root / "alias").symlink_to("/data/in")
    (root / "gone").symlink_to("/not/there")
    (root / "tofile").symlink_to("file")
    return LayerTree((root,))


def _placed(
    context: ContextTree, below: LayerTree, src: str, dest: str, work_dir: str = "/work"
) -> list[Placed]:
    return place(select(context, src.split()), dest, below=below, work_dir=work_dir)


def _files(found: list[Placed]) -> list[str]:
    return [item.path for item in found if item.entry is not None and item.entry.kind != "directory"]


@pytest.mark.parametrize(
    ("src", "dest", "files"),
    [
        ("one.txt", "/renamed", ["renamed"]),
        ("one.txt", "/new/", ["new/one.txt"]),
        ("one.txt", "/a/b/c", ["a/b/c"]),
        ("one.txt", "/etc", ["etc/one.txt"]),
        ("one.txt", "/file", ["file"]),
        ("one.txt", "/", ["one.txt"]),
        ("one.txt", ".", ["work/one.txt"]),
        ("one.txt", "./", ["work/one.txt"]),
        ("one.txt", "sub/x", ["work/sub/x"]),
        ("one.txt", "../x", ["x"]),
        ("one.txt", "/../../x", ["x"]),
        ("one.txt", "/new/.", ["new/one.txt"]),
        ("one.txt", "/alias", ["data/in/one.txt"]),
        ("one.txt", "/alias/", ["data/in/one.txt"]),
        ("one.txt", "/alias/new/f", ["data/in/new/f"]),
        ("one.txt", "/lib/y", ["usr/lib/y"]),
        ("one.txt", "/gone", ["gone"]),  # a link that leads nowhere is replaced
        ("one.txt", "/tofile", ["tofile"]),  # and so is one to a file
        ("one.txt", "/gone/", ["not/there/one.txt"]),
        ("app", "/srv", ["srv/lib/a.py", "srv/main.py"]),
        ("app", "/srv/", ["srv/lib/a.py", "srv/main.py"]),
        ("app", "/data", ["data/lib/a.py", "data/main.py"]),
        ("app", "/alias", ["data/in/lib/a.py", "data/in/main.py"]),
        ("app/*", "/srv/", ["srv/a.py", "srv/main.py"]),  # a directory that matches gives its contents
        ("one.txt two.txt", "/both/", ["both/one.txt", "both/two.txt"]),
        ("app other", "/m/", ["m/lib/a.py", "m/lib/b.py", "m/main.py"]),
        ("link", "/l", ["l"]),
        ("link/", "/l", ["l/lib/a.py", "l/main.py"]),
        ("link/main.py", "/l", ["l"]),
        ("/one.txt", "/x", ["x"]),  # from the context's own root
        ("/", "/x/", ["x/app/lib/a.py"]),
    ],
)
def test_destinations(context: ContextTree, below: LayerTree, src: str, dest: str, files: list[str]) -> None:
    assert _files(_placed(context, below, src, dest))[: len(files)] == files


@pytest.mark.parametrize(
    ("src", "dest", "code"),
    [
        ("one.txt two.txt", "/x", "copy-dest-not-a-directory"),
        ("one.txt two.txt", "/etc", "copy-dest-not-a-directory"),
        ("one.txt", "/file/", "copy-type-conflict"),
        ("one.txt", "/file/x", "copy-type-conflict"),
        ("one.txt", "/tofile/", "copy-type-conflict"),
        ("app", "/file", "copy-type-conflict"),
        ("tree", "/etc/passwd", "copy-type-conflict"),
        ("one.txt", "/data/in/f/g/h", "copy-type-conflict"),
        ("app tree/etc", "/usr/", ""),
    ],
)
def test_what_cannot_be(context: ContextTree, below: LayerTree, src: str, dest: str, code: str) -> None:
    if not code:
        assert _placed(context, below, src, dest)
        return
    with pytest.raises(InvalidArgument) as caught:
        _placed(context, below, src, dest)
    assert caught.value.code == code
    assert "\n" not in caught.value.message


def test_a_file_does_not_replace_a_directory_nor_the_other_way_round(
    context: ContextTree, below: LayerTree
) -> None:
    (context.root / "usr").write_text("x")
    (context.root / "bad/lib").mkdir(parents=True)
    for src, dest in (("usr", "/"), ("bad", "/")):  # /lib of the image is a link
        with pytest.raises(InvalidArgument) as caught:
            _placed(context, below, src, dest)
        assert caught.value.code == "copy-type-conflict"
    (context.root / "clash/app").parent.mkdir()
    (context.root / "clash/app").write_text("a file")
    (context.root / "dirs/app").mkdir(parents=True)
    for src in ("clash dirs", "dirs clash"):
        with pytest.raises(InvalidArgument) as caught:
            _placed(context, below, src, "/new/")
        assert caught.value.code == "copy-type-conflict"


def test_where_two_meet_the_later_one_counts(context: ContextTree, below: LayerTree) -> None:
    for src, winner in (("app other", "other/lib/a.py"), ("other app", "app/lib/a.py")):
        found = {item.path: item for item in _placed(context, below, src, "/m/")}
        entry = found["m/lib/a.py"].entry
        assert entry is not None
        assert entry.path == winner


def test_only_directories_that_something_goes_into_are_entries(
    context: ContextTree, below: LayerTree
) -> None:
    assert _placed(context, below, "empty", "/data") == []
    assert [item.path for item in _placed(context, below, "empty", "/data/new")] == ["data", "data/new"]
    found = _placed(context, below, "one.txt", "/data/in/")
    assert [(item.path, item.present is not None) for item in found] == [
        ("data", True),
        ("data/in", True),
        ("data/in/one.txt", False),
    ]


def test_the_order_is_that_of_a_layer(context: ContextTree, below: LayerTree) -> None:
    for name in ("z/a-b/f", "z/a/f", "z/a.b", "z/\udcff", "z/ä"):
        (context.root / name).parent.mkdir(parents=True, exist_ok=True)
        (context.root / name).write_text("")
    found = [item.path for item in _placed(context, below, "z", "/z")]
    assert found == ["z", "z/a", "z/a/f", "z/a-b", "z/a-b/f", "z/a.b", "z/ä", "z/\udcff"]


def test_a_circle_of_links_in_the_image(context: ContextTree, below: LayerTree, tmp_path: Path) -> None:
    (tmp_path / "image/loop").symlink_to("loop")
    with pytest.raises(InvalidArgument) as caught:
        _placed(context, below, "one.txt", "/loop/x")
    assert caught.value.code == "too-many-links"
