"""The first screen of what differs between two layers or trees that should be the same."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.content.blobs import BlobStore
from aos.oci.descriptor import MEDIA_LAYER_GZIP
from aos.oci.digest import digest_of
from aos.oci.layer import Layer
from aos.package import BuiltLayer, Package, assemble
from aos.package.content_difference import content_difference
from aos.package.difference import Difference, first_differences, package_differences
from aos.package.sources import LayerSource, TreeSource
from package_making import DEFINITION, image

if TYPE_CHECKING:
    from pathlib import Path

Entry = tuple[str, bytes, dict[str, Any]]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def file(name: str, data: bytes = b"", **fields: Any) -> Entry:
    return name, data, fields


def layer(blobs: BlobStore, *entries: Entry, level: int = 9, format: int = tarfile.PAX_FORMAT) -> Layer:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=format) as archive:
        for name, data, fields in entries:
            made = tarfile.TarInfo(name)
            made.size = len(data)
            for key, value in fields.items():
                setattr(made, key, value)
            archive.addfile(made, io.BytesIO(data))
    stored = blobs.put(gzip.compress(tar.getvalue(), level, mtime=0))
    return Layer(stored.digest, digest_of(tar.getvalue()), stored.size, MEDIA_LAYER_GZIP)


def differences(blobs: BlobStore, one: Layer, two: Layer, limit: int = 10) -> list[Difference]:
    return first_differences(LayerSource(blobs, one), LayerSource(blobs, two), limit=limit, step="run make")


A = file("a", b"one\ntwo\n", mode=0o644)
B = file("b", b"same")


@pytest.mark.parametrize(
    ("changed", "why", "before", "after"),
    [
        (file("a", b"one\ntwo\n", mode=0o755), "mode", "0644", "0755"),
        (file("a", b"one\ntwo\n", mode=0o644, uid=3), "owner", "0:0", "3:0"),
        (file("a", b"one\ntwo\n", mode=0o644, mtime=1.5), "time", "0", "1.5"),
        (file("a", mode=0o644, type=tarfile.FIFOTYPE), "type", "file", "fifo"),
        (
            file("a", b"one\ntwo\n", mode=0o644, pax_headers={"SCHILY.xattr.user.x": "y"}),
            "xattrs",
            "{}",
            "{'user.x': 'y'}",
        ),
    ],
    ids=["mode", "owner", "time", "type", "xattrs"],
)
def test_each_aspect_is_named(blobs: BlobStore, changed: Entry, why: str, before: str, after: str) -> None:
    (found,) = differences(blobs, layer(blobs, A, B), layer(blobs, changed, B))
    assert (found.where, found.why, found.before, found.after) == ("/a", why, before, after)
    assert found.lines() == [f"/a: {why}: {before} -> {after}   [run make]"]


def test_text_is_shown_as_a_short_diff(blobs: BlobStore) -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    one = layer(blobs, file("a", text.encode()))
    two = layer(blobs, file("a", text.replace("line 42\n", "line forty-two\n").encode()))
    (found,) = differences(blobs, one, two)
    assert (found.why, found.before, found.after) == ("content", "790 bytes", "797 bytes, from line 43 on")
    assert found.shown == (" line 41", "-line 42", "+line forty-two", " line 43")


def test_bytes_are_shown_in_hexadecimal(blobs: BlobStore) -> None:
    data = bytes(range(256)) * 1000
    other = data[:100_001] + b"\xff" + data[100_002:]
    (found,) = differences(blobs, layer(blobs, file("a", data)), layer(blobs, file("a", other)))
    assert found.after.endswith("from byte 100001 on")
    assert found.shown[0].startswith("-000186a0  a0 a1 a2")
    assert found.shown[2].startswith("+000186a0  a0 ff a2")
    assert len(found.shown) == 4


def test_what_only_one_has_and_whiteouts(blobs: BlobStore) -> None:
    found = differences(blobs, layer(blobs, A, file(".wh.x")), layer(blobs, A, B))
    assert [(one.where, one.why) for one in found] == [("/.wh.x", "only before"), ("/b", "only after")]


def test_the_order_of_entries(blobs: BlobStore) -> None:
    (found,) = differences(blobs, layer(blobs, A, B), layer(blobs, B, A))
    assert (found.where, found.why, found.before, found.after) == (
        "entry 1 of the layer",
        "order",
        "/a",
        "/b",
    )


def test_headers_that_say_nothing_about_the_file(blobs: BlobStore) -> None:
    (found,) = differences(blobs, layer(blobs, A, B), layer(blobs, A, file("b", b"same", uname="builder")))
    assert found.lines() == ["/b: header: user '' -> 'builder'   [run make]"]


def test_compression(blobs: BlobStore) -> None:
    big = file("a", b"abcabcabd" * 500)
    one, two = layer(blobs, big, level=1), layer(blobs, big, level=9)
    assert one.diff_id == two.diff_id and one.digest != two.digest
    (found,) = differences(blobs, one, two)
    assert (found.where, found.why) == ("the layer's blob", "compression")
    assert differences(blobs, one, one) == []


def test_no_more_than_asked_for_and_no_control_characters(blobs: BlobStore) -> None:
    one = layer(blobs, *(file(f"\x1b{number}", b"\x1b[2Ja") for number in range(9)))
    two = layer(blobs, *(file(f"\x1b{number}", b"\x1b[2Jb") for number in range(9)))
    found = differences(blobs, one, two, limit=3)
    assert len(found) == 3
    assert all(line.isprintable() for one in found for line in one.lines())


def test_trees(tmp_path: Path) -> None:
    for name in ("one", "two"):
        root = tmp_path / name
        (root / "d").mkdir(parents=True)
        (root / "d/a").write_text(name)
        (root / "d/hard").hardlink_to(root / "d/a")
        (root / "link").symlink_to(name)
        os.mkfifo(root / "fifo")
        for path in [*root.rglob("*"), root]:
            os.utime(path, (0, 0), follow_symlinks=False)
    found = first_differences(TreeSource(tmp_path / "one"), TreeSource(tmp_path / "two"))
    assert [(one.where, one.why) for one in found] == [
        ("/d/a", "content"),
        ("/d/hard", "content"),
        ("/link", "link"),
    ]
    assert found[0].shown == ("-one", "+two")
    assert first_differences(TreeSource(tmp_path / "one"), TreeSource(tmp_path / "one")) == []


def test_a_layer_and_the_tree_it_came_from(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(b"one\ntwo\n")
    (tmp_path / "tree/a").chmod(0o644)
    os.utime(tmp_path / "tree/a", (0, 0))
    status = (tmp_path / "tree/a").stat()
    made = layer(blobs, file("a", b"one\ntwo\n", mode=0o644, uid=status.st_uid, gid=status.st_gid))
    assert first_differences(LayerSource(blobs, made), TreeSource(tmp_path / "tree")) == []


def test_packages_configuration_first_then_layers(blobs: BlobStore, tmp_path: Path) -> None:
    def package(store: BlobStore, user: str, *layers: Layer) -> Package:
        built = [BuiltLayer(one, f"step {number}", "", "") for number, one in enumerate(layers)]
        return assemble(store, definition_json=DEFINITION, image=image(user=user), layers=built)

    other = BlobStore(tmp_path / "other")
    changed = replace(layer(other, file("a", b"other")))
    one = package(blobs, "1", layer(blobs, B), layer(blobs, A))
    two = package(other, "2", layer(other, B), changed)
    found = package_differences((one, blobs), (two, other))
    assert [(item.where, item.why, item.step) for item in found][:2] == [
        ("user", "config", ""),
        ("/a", "content", "step 1"),
    ]
    assert package_differences((one, blobs), (one, blobs)) == []
    (short,) = package_differences((one, blobs), (package(blobs, "1", layer(blobs, B)), blobs))
    assert (short.why, short.before, short.after) == ("layers", "2", "1")


@given(st.binary(max_size=300), st.binary(max_size=50), st.binary(max_size=50), st.integers(1, 40))
def test_the_first_byte_that_differs_is_found_however_the_pieces_fall(
    same: bytes, one: bytes, two: bytes, size: int
) -> None:
    left, right = same + one, same + two
    pieces = [left[at : at + size] for at in range(0, len(left), size)]
    found = content_difference(pieces, [right])
    if left == right:
        assert found is None
    else:
        assert found is not None
        assert left[: found.offset] == right[: found.offset]
        assert left[found.offset : found.offset + 1] != right[found.offset : found.offset + 1]
        assert found.shown
        assert all(line.isprintable() for line in found.shown)


def test_a_difference_far_behind_is_found_in_little_memory() -> None:
    import tracemalloc

    piece = b"0123456789\n" * 90_000
    tracemalloc.start()
    try:
        found = content_difference(
            (piece for _ in range(100)), (*(piece for _ in range(99)), piece[:-3] + b"x9\n")
        )
        assert found is not None
        assert found.line == 9_000_000
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
