"""The layers that builds make: adopted instead of unpacked, compressed as asked, equal ones allowed."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from aos.content.blobs import BlobStore
from aos.content.protocol import IdMap
from aos.content.snapshots import SnapshotStore
from aos.oci.layer import Layer
from tree_facts import facts

if TYPE_CHECKING:
    from pathlib import Path

    from fix_build import Builder

pytestmark = pytest.mark.root

SCRIPT = """\
mkdir -p /srv/deep && echo text > /srv/deep/file && ln /srv/deep/file /srv/hard && ln -s file /srv/deep/soft
mkfifo /srv/fifo && chmod 4751 /srv/hard && chown 7:8 /srv/deep && rm -r /etc && mkdir /etc && echo x > /etc/x
rm /bin/ls && touch -d '1971-01-01' /srv/fifo
"""


def _layers(layout: Path) -> list[dict[str, Any]]:
    index = json.loads((layout / "index.json").read_bytes())
    blobs = layout / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_bytes())
    config = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_bytes())
    return [
        layer | {"diff_id": diff_id}
        for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
    ]


def test_what_a_build_adopts_is_what_unpacking_gives(builder: Builder, tmp_path: Path) -> None:
    context = builder.context(
        {"a/one": "1", "two": "2"}, [{"copy": {"src": ".", "dest": "/"}}, {"run": SCRIPT}]
    )
    layout = builder.layout(context)
    blobs = BlobStore(builder.aos.root / "content")
    names = {path.name for path in (builder.aos.root / "content/snapshots").iterdir()}
    other = SnapshotStore(tmp_path / "other", blobs)
    made = [
        Layer(one["digest"], one["diff_id"], one["size"], one["mediaType"]) for one in _layers(layout)[-2:]
    ]
    for tree in other.ensure(made, IdMap.identity()):
        assert tree.name in names  # the build has it, though nothing stood on the last one
        assert facts(builder.aos.root / "content/snapshots" / tree.name, dates=2) == facts(tree, dates=2)


def test_the_next_step_unpacks_nothing(builder: Builder) -> None:
    """The blob of the step below is damaged behind the build's back: unpacking it would fail."""
    steps: list[object] = [{"run": "echo 1 > /one"}]
    context = builder.context({}, steps)
    [*_, layer] = _layers(builder.layout(context))
    blob = builder.aos.root / "content/blobs" / layer["digest"].replace(":", "/")
    data = blob.read_bytes()
    blob.write_bytes(bytes(len(data)))
    builder.build(builder.context({}, [*steps, {"run": "test $(cat /one) = 1 && echo 2 > /two"}]))
    blob.write_bytes(data)


def test_equal_layers_can_stand_on_each_other(builder: Builder) -> None:
    again = {"copy": {"src": "file", "dest": "/file"}}
    context = builder.context(
        {"file": "x"}, [again, {"run": "rm /file"}, again, {"run": "test $(cat /file) = x"}]
    )
    builder.build(context)


@pytest.mark.parametrize(("how", "suffix"), [("gzip", "tar+gzip"), ("zstd", "tar+zstd"), ("none", "tar")])
def test_layers_are_compressed_as_asked(builder: Builder, how: str, suffix: str, tmp_path: Path) -> None:
    files = {"file": "text " * 10_000}
    context = builder.context(files, [{"copy": {"src": "file", "dest": "/file"}}], base="scratch")
    before = _layers(builder.layout(context))
    layers = _layers(builder.layout(context, "--compression", how))
    assert layers[0]["mediaType"] == "application/vnd.oci.image.layer.v1." + suffix
    assert [one["diff_id"] for one in layers] == [one["diff_id"] for one in before]
    digest = builder.build(context, "--compression", how).out
    assert (
        builder.build(context, "--compression", how, "--no-cache").out == digest
    )  # no mixture, whatever is cached
    if how != "zstd":  # umoci knows no zstd
        layout = builder.layout(context, "--compression", how)
        argv = ["umoci", "unpack", "--image", f"{layout}:1.0.0", str(tmp_path / "bundle")]
        subprocess.run(argv, check=True, capture_output=True)
        assert (tmp_path / "bundle/rootfs/file").read_text() == files["file"]


def test_a_compression_that_does_not_exist_is_refused(builder: Builder) -> None:
    result = builder.build(builder.context(), "--compression", "xz", check=2)
    assert "gzip or zstd or none" in result.err
