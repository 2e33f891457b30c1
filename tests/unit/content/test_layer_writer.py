"""A layer's writer: the blob follows from the bytes alone, and a failure ends everything."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from aos.content.compression import PIECE
from aos.content.layer_writer import layer_writer
from aos.content.store import ContentStore
from aos.errors import AosError

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.compression import Compression
    from aos.oci.layer import Layer


def _content(seed: int) -> bytes:
    """Text and noise in turns, which is where compressors differ."""
    source = random.Random(seed)
    return b"".join(source.randbytes(400_000) + b"some text %d\n" % n * 30_000 for n in range(9))


def _write(content: ContentStore, data: bytes, source: random.Random, how: Compression, spare: Path) -> Layer:
    """Write `data` in random portions by random means."""
    spare.write_bytes(data)
    with spare.open("rb") as file, layer_writer(content.blobs, how) as writer:
        at = 0
        while at < len(data):
            count = min(len(data) - at, source.choice([1, 512, 100_000, 3 * PIECE]))
            if source.random() < 0.5:
                writer.write(data[at : at + count])
            else:
                os.lseek(file.fileno(), at, os.SEEK_SET)
                assert writer.copy(file.fileno(), count) == 0
            at += count
        writer.zeros(3 * PIECE + 7)
        return writer.commit()


@pytest.mark.parametrize("how", ["gzip", "zstd", "none"])
def test_the_blob_depends_on_the_bytes_alone(tmp_path: Path, how: Compression) -> None:
    content, data = ContentStore(tmp_path / "content"), _content(1)
    layers = {_write(content, data, random.Random(seed), how, tmp_path / "spare") for seed in range(4)}
    [layer] = layers
    whole = data + bytes(3 * PIECE + 7)
    assert layer.diff_id == "sha256:" + hashlib.sha256(whole).hexdigest()
    if how == "gzip":
        assert gzip.decompress(content.blobs.read(layer.digest)) == whole


def test_a_file_that_ends_too_early_is_told(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    (tmp_path / "short").write_bytes(b"x" * 10)
    with (tmp_path / "short").open("rb") as file, layer_writer(content.blobs, "none") as writer:
        assert writer.copy(file.fileno(), 15) == 5


def test_what_was_not_committed_leaves_nothing(tmp_path: Path) -> None:
    content, before = ContentStore(tmp_path / "content"), threading.active_count()
    with layer_writer(content.blobs, "gzip") as writer:
        writer.write(_content(2))
    assert list(content.blobs.list()) == []
    assert list((tmp_path / "content/ingest").iterdir()) == []
    assert threading.active_count() == before


@pytest.mark.root
def test_a_full_disk_ends_it_at_once(tmp_path: Path) -> None:
    """A real one: a tmpfs of 4 MiB."""
    import ctypes

    (tmp_path / "disk").mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", bytes(tmp_path / "disk"), b"tmpfs", 0, b"size=4m") == 0, errno.errorcode[
        ctypes.get_errno()
    ]
    before = threading.active_count()
    try:
        content = ContentStore(tmp_path / "disk/content")
        with pytest.raises(AosError) as caught, layer_writer(content.blobs, "none") as writer:
            for _ in range(1000):
                writer.write(b"x" * PIECE)
        assert caught.value.code == "disk-full"
        assert list((tmp_path / "disk/content/ingest").iterdir()) == []
    finally:
        assert libc.umount2(bytes(tmp_path / "disk"), 0) == 0
    assert threading.active_count() == before
