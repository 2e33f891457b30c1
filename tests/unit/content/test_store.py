"""The content store: whole or not at all, verified, safe between processes, collected only when nothing needs it."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from aos.content.compression import decompressed
from aos.content.gc import collect
from aos.content.protocol import IdMap
from aos.content.store import ContentStore
from aos.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted
from aos.oci.descriptor import MEDIA_LAYER_GZIP, MEDIA_LAYER_TAR, MEDIA_LAYER_ZSTD
from aos.oci.digest import Digest, digest_of
from aos.oci.layer import Layer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made, data


def layer_of(content: ContentStore, data: bytes, media_type: str = MEDIA_LAYER_TAR) -> Layer:
    stored = data if media_type == MEDIA_LAYER_TAR else gzip.compress(data, mtime=0)
    info = content.blobs.put(stored)
    return Layer(info.digest, digest_of(data), info.size, media_type)


def unpacked(content: ContentStore, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    return content.snapshots.ensure([layer_of(content, tar(*entries))], IdMap.identity())[0]


def test_blobs_are_found_by_their_digest(content: ContentStore) -> None:
    info = content.blobs.put(b"hello")
    assert info.digest == digest_of(b"hello")
    assert content.blobs.read(info.digest) == b"hello"
    assert [blob.size for blob in content.blobs.list()] == [5]
    assert content.blobs.path(info.digest).stat().st_mode & 0o777 == 0o444
    content.blobs.delete(info.digest)
    assert not content.blobs.exists(info.digest)
    with pytest.raises(NotFound):
        content.blobs.read(info.digest)
    with pytest.raises(NotFound):
        content.blobs.stat(info.digest)


def test_what_is_not_what_was_announced_is_not_kept(content: ContentStore) -> None:
    with content.blobs.writer() as writer:
        writer.write(b"abc")
        with pytest.raises(DataLoss):
            writer.commit(digest_of(b"abd"))
    with content.blobs.writer() as writer:
        writer.write(b"abc")
        with pytest.raises(DataLoss):
            writer.commit(digest_of(b"abc"), 4)
    with content.blobs.writer() as writer:
        writer.write(b"abandoned")
    assert list(content.blobs.list()) == []
    assert list((content.root / "ingest").iterdir()) == []


@pytest.mark.parametrize("damage", [b"hellO", b"hell", b"hello!"])
def test_damage_shows_when_it_is_read(content: ContentStore, damage: bytes) -> None:
    info = content.blobs.put(b"hello")
    path = content.blobs.path(info.digest)
    path.chmod(0o600)
    path.write_bytes(damage)
    with pytest.raises(DataLoss) as refused:
        content.blobs.read(info.digest)
    assert refused.value.code == "digest-mismatch"
    assert refused.value.hint


@pytest.mark.root
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        content = ContentStore(disk)
        with pytest.raises(ResourceExhausted) as refused:
            content.blobs.put(os.urandom(1 << 20))
        assert refused.value.code == "disk-full"
        assert list((disk / "ingest").iterdir()) == []
        content.blobs.put(b"small")
    finally:
        subprocess.run(["umount", disk], check=True)


def _put_many(root: Path, count: int) -> None:
    content = ContentStore(root)
    for number in range(count):
        content.blobs.put(b"%d" % (number % 10))


def test_writers_of_the_same_blobs_do_not_hurt_each_other(content: ContentStore) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(content.root, 50)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(list(content.blobs.list())) == 10
    assert {content.blobs.read(blob.digest) for blob in content.blobs.list()} == {
        b"%d" % n for n in range(10)
    }


def test_dead_writers_are_swept_and_live_ones_are_not(content: ContentStore) -> None:
    (content.root / "ingest" / "dead").write_bytes(b"x" * 100)
    with content.blobs.writer() as writer:
        writer.write(b"alive")
        assert content.blobs.sweep() == 100
        assert content.blobs.read(writer.commit().digest) == b"alive"


def test_compressions_are_read_back() -> None:
    text = b"".join(b"line %d\n" % number for number in range(100_000))
    for media_type, stored in (
        (MEDIA_LAYER_TAR, text),
        (MEDIA_LAYER_GZIP, gzip.compress(text[:1000]) + gzip.compress(text[1000:])),
        (MEDIA_LAYER_ZSTD, zstandard.compress(text[:1000]) + zstandard.compress(text[1000:])),
    ):
        assert b"".join(decompressed(io.BytesIO(stored), media_type)) == text


@pytest.mark.parametrize("media_type", [MEDIA_LAYER_GZIP, MEDIA_LAYER_ZSTD])
def test_what_is_not_compressed_as_announced(media_type: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        list(decompressed(io.BytesIO(b"plain text"), media_type))
    assert refused.value.code == "layer-invalid"
    with pytest.raises(InvalidArgument):
        list(decompressed(io.BytesIO(b""), "application/x-else"))


def test_a_truncated_stream_and_garbage_behind_one() -> None:
    stored = gzip.compress(b"x" * 100_000)
    with pytest.raises(DataLoss):
        list(decompressed(io.BytesIO(stored[:-10]), MEDIA_LAYER_GZIP))
    with pytest.raises((InvalidArgument, DataLoss)):
        list(decompressed(io.BytesIO(stored + b"garbage"), MEDIA_LAYER_GZIP))


def test_a_bomb_comes_in_pieces() -> None:
    stored = gzip.compress(bytes(200 << 20))
    assert max(len(piece) for piece in decompressed(io.BytesIO(stored), MEDIA_LAYER_GZIP)) <= 1 << 20


@pytest.mark.root
def test_a_layer_becomes_a_directory(content: ContentStore) -> None:
    tree = unpacked(
        content,
        entry("d", type=tarfile.DIRTYPE, mode=0o2750, mtime=7, uid=5, gid=6),
        entry("d/file", b"content", mode=0o4755, mtime=1234567890, uid=1000, gid=1001),
        entry("d/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        entry("d/hard", type=tarfile.LNKTYPE, linkname="d/file"),
        entry("d/.wh.gone"),
        entry("opaque/.wh..wh..opq"),
        entry("fifo", type=tarfile.FIFOTYPE, mode=0o600),
        entry("n" * 200, b"long"),
        entry("./dot", b"dot"),
        entry("caps", b"c", pax_headers={"SCHILY.xattr.user.note": "ü", "mtime": "12.5"}),
    )
    file = (tree / "d/file").stat()
    assert (file.st_mode & 0o7777, file.st_uid, file.st_gid, file.st_mtime) == (
        0o4755,
        1000,
        1001,
        1234567890,
    )
    assert (tree / "d/file").read_bytes() == b"content"
    directory = (tree / "d").stat()
    assert (directory.st_mode & 0o7777, directory.st_uid, directory.st_mtime) == (0o2750, 5, 7)
    assert (tree / "d/link").readlink().as_posix() == "/etc/passwd"
    assert (tree / "d/hard").stat().st_ino == file.st_ino
    gone = (tree / "d/gone").lstat()
    assert (gone.st_mode & 0o170000, gone.st_rdev) == (0o020000, 0)
    assert os.getxattr(tree / "opaque", "trusted.overlay.opaque") == b"y"
    assert (tree / ("n" * 200)).read_bytes() == b"long"
    assert os.getxattr(tree / "caps", "user.note") == "ü".encode()
    assert (tree / "caps").stat().st_mtime_ns == 12_500_000_000


@pytest.mark.root
@pytest.mark.parametrize(
    "entries",
    [
        [entry("../out", b"x")],
        [entry("a/../../out", b"x")],
        [entry("l", type=tarfile.SYMTYPE, linkname="/tmp"), entry("l/x", b"x")],
        [entry("l", type=tarfile.SYMTYPE, linkname=".."), entry("l/x", b"x")],
        [entry("h", type=tarfile.LNKTYPE, linkname="../../../etc/passwd")],
        [entry("h", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
        [entry("f", b"x"), entry("f/x", b"x")],
        [entry("c", type=tarfile.CHRTYPE, devmajor=0, devminor=0)],
        [entry("x", b"x", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})],
        [entry("x", b"x", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"})],
        [entry("d/.wh.", b"")],
        [entry("d/.wh...", b"")],
        [entry("t", type=b"Z")],
        [entry(".", b"x")],
    ],
)
def test_hostile_entries_are_refused_and_leave_nothing(
    content: ContentStore, entries: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    layer = layer_of(content, tar(*entries))
    with pytest.raises(InvalidArgument) as refused:
        content.snapshots.ensure([layer], IdMap.identity())
    assert refused.value.code == "layer-invalid"
    assert list(content.snapshots.directory.iterdir()) == []


@pytest.mark.root
def test_absolute_names_stay_inside_and_later_entries_win(content: ContentStore) -> None:
    tree = unpacked(
        content,
        entry("/abs", b"in"),
        entry("twice", b"one"),
        entry("twice", b"two"),
        entry("d", type=tarfile.DIRTYPE),
        entry("d", type=tarfile.SYMTYPE, linkname="abs"),
    )
    assert (tree / "abs").read_bytes() == b"in"
    assert (tree / "twice").read_bytes() == b"two"
    assert (tree / "d").is_symlink()


@pytest.mark.root
def test_layers_are_verified_and_unpacked_once(content: ContentStore) -> None:
    layer = layer_of(content, tar(entry("f", b"x")), MEDIA_LAYER_GZIP)
    [first] = content.snapshots.ensure([layer], IdMap.identity())
    assert content.snapshots.ensure([layer], IdMap.identity()) == (first,)
    lying = Layer(layer.digest, digest_of(b"else"), layer.size, layer.media_type)
    with pytest.raises(DataLoss) as refused:
        content.snapshots.ensure([lying], IdMap.identity())
    assert refused.value.code == "diff-id-mismatch"
    broken = layer_of(content, b"this is no tar at all" * 100)
    with pytest.raises(InvalidArgument):
        content.snapshots.ensure([broken], IdMap.identity())
    assert list(content.snapshots.directory.iterdir()) == [first]


@pytest.mark.root
def test_what_is_known_is_there(content: ContentStore) -> None:
    identity = IdMap.identity()
    one, other = (layer_of(content, tar(entry("f", data))) for data in (b"x", b"y"))
    assert content.snapshots.known([one], identity) is None
    found = content.snapshots.ensure([one], identity)
    assert content.snapshots.known([one], identity) == found
    assert content.snapshots.known([one, other], identity) is None
    shutil.rmtree(found[0])  # pruned by another process
    assert content.snapshots.known([one], identity) is None


@pytest.mark.root
def test_owners_are_shifted(content: ContentStore) -> None:
    layer = layer_of(content, tar(entry("f", b"x", uid=0, gid=5)))
    id_map = IdMap(((0, 100000, 1000),), ((0, 200000, 1000),))
    [tree] = content.snapshots.ensure([layer], id_map)
    assert ((tree / "f").stat().st_uid, (tree / "f").stat().st_gid) == (100000, 200005)
    assert id_map.to_container(100000, 200005) == (0, 5)
    with pytest.raises(InvalidArgument):
        id_map.to_host(1000, 0)


def nothing(_: Digest) -> list[Digest]:
    return []


@pytest.mark.root
def test_collection_removes_what_nothing_needs(content: ContentStore) -> None:
    layer = layer_of(content, tar(entry("f", b"x")))
    manifest, pinned, doomed = (content.blobs.put(text).digest for text in (b"m", b"p", b"d"))
    [tree] = content.snapshots.ensure([layer], IdMap.identity())
    content.pins.set("cache", "key", [pinned])
    refers = {manifest: [layer.digest]}

    def run(*roots: Digest, dry_run: bool = False) -> tuple[int, int]:
        done = collect(content, lambda: roots, lambda one: refers.get(one, []), dry_run=dry_run)
        return done.blobs, done.snapshots

    assert run(manifest, dry_run=True) == (1, 0)
    assert content.blobs.exists(doomed)
    (content.snapshots.directory / "stray").touch()  # whoever left it, it is in nobody's way
    assert run(manifest) == (1, 1)
    assert not content.blobs.exists(doomed)
    assert tree.exists()
    content.pins.remove("cache", "key")
    assert run() == (3, 1)
    assert not tree.exists()
    assert list(content.blobs.list()) == []


def test_a_live_lease_keeps_what_it_names_and_what_is_young(content: ContentStore) -> None:
    old = content.blobs.put(b"old").digest
    with content.leases.hold("pull") as lease:
        lease.add(old)
        young = content.blobs.put(b"young").digest
        assert collect(content, list, nothing).blobs == 0
        assert content.blobs.exists(old) and content.blobs.exists(young)
    assert collect(content, list, nothing).blobs == 2


def _hold_and_die(root: Path, digest: Digest) -> None:
    content = ContentStore(root)
    manager = content.leases.hold("build")
    manager.__enter__().add(digest)
    os._exit(1)


def test_a_dead_holders_lease_is_void(content: ContentStore) -> None:
    digest = content.blobs.put(b"x").digest
    holder = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(content.root, digest))
    holder.start()
    holder.join()
    assert len(list((content.root / "leases").iterdir())) == 1
    assert collect(content, list, nothing).blobs == 1
    assert list((content.root / "leases").iterdir()) == []


def test_pins_have_plain_names(content: ContentStore) -> None:
    content.pins.set("a", "b", [digest_of(b"1")])
    content.pins.set("a", "b", [digest_of(b"2")])
    [pin] = content.pins.list()
    assert (pin.owner, pin.name, pin.digests) == ("a", "b", frozenset([digest_of(b"2")]))
    for bad in ("", "../x", ".hidden", "a/b"):
        with pytest.raises(InvalidArgument):
            content.pins.set(bad, "x", [])
