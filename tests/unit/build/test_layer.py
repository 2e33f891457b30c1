"""Layers: any tree, committed and unpacked again, is the same tree; the same tree is the same bytes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aos.build.layers.commit import write_layer
from aos.content.protocol import IdMap
from aos.content.store import ContentStore
from fix_installation import requires

pytestmark = pytest.mark.root

EPOCH = 1_000_000_000

_NAME = st.sampled_from(["a", "b", "é", "with space", "n" * 120, "\udcff", "new\nline"])
_FILE = st.tuples(
    st.just("file"),
    st.binary(max_size=2000),
    st.sampled_from([0o644, 0o4755, 0o600, 0o1777]),
    st.integers(0, 3),
)
_LINK = st.tuples(st.just("link"), st.sampled_from(["a", "../b", "/etc/passwd"]))
_OTHER = st.tuples(st.sampled_from(["whiteout", "fifo", "device", "hard", "socket"]))


def _directory() -> st.SearchStrategy[tuple[object, ...]]:
    return st.tuples(st.just("directory"), st.booleans(), _TREE)


_TREE: st.SearchStrategy[dict[str, tuple[object, ...]]] = st.dictionaries(
    _NAME, _FILE | _LINK | _OTHER | st.deferred(_directory), max_size=4
)


def make(directory: Path, tree: dict[str, tuple[object, ...]], backwards: bool) -> None:
    """Write a tree as an overlay's upper directory would hold it."""
    names = sorted(tree, reverse=backwards)
    for name in names:
        path, what = directory / name, tree[name]
        match what:
            case ("file", bytes(data), int(mode), int(owner)):
                path.write_bytes(data)
                os.chown(path, owner, owner + 1)
                path.chmod(mode)
                if owner == 3:
                    os.setxattr(path, "user.note", b"\xff\x00x")
                os.utime(path, (EPOCH + owner - 1, EPOCH + owner - 1))
            case ("link", str(target)):
                path.symlink_to(target)
                os.utime(path, (5, 5), follow_symlinks=False)
            case ("directory", bool(opaque), dict(inner)):
                path.mkdir()
                make(path, inner, backwards)
                if opaque:
                    os.setxattr(path, "trusted.overlay.opaque", b"y")
                os.utime(path, (7, 7))
            case ("whiteout",):
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            case ("fifo",):
                os.mkfifo(path)
            case ("device",):
                os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            case ("socket",):
                os.mknod(path, stat.S_IFSOCK)
    for name in sorted(name for name in names if tree[name] == ("hard",)):
        files = sorted(other for other in names if tree[other][0] == "file")
        if files:
            os.link(directory / files[0], directory / name)


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything of a tree that a layer holds, with times as a layer has them."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for directory, directories, files in os.walk(root):
        for name in sorted([*directories, *files]):
            path = Path(directory, name)
            key = str(path.relative_to(root))
            status = path.lstat()
            whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
            if stat.S_ISSOCK(status.st_mode):
                continue
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = (path.read_bytes(), status.st_nlink > 1)
            elif stat.S_ISLNK(status.st_mode):
                content = path.readlink()
            xattrs = {} if path.is_symlink() else {one: os.getxattr(path, one) for one in os.listxattr(path)}
            mode = stat.S_IFCHR if whiteout else status.st_mode
            time = 0 if whiteout or stat.S_ISDIR(status.st_mode) else min(int(status.st_mtime), EPOCH)
            owner = (status.st_uid, status.st_gid)
            found[key] = (
                mode,
                () if whiteout else owner,
                status.st_rdev,
                content,
                tuple(sorted(xattrs.items())),
                time,
            )
            first.setdefault(status.st_ino, key)
    return found


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_TREE)
def test_any_tree_round_trips(tree: dict[str, tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as home:
        content = ContentStore(Path(home, "content"))
        one, two = Path(home, "one"), Path(home, "two")
        for upper, backwards in ((one, False), (two, True)):
            upper.mkdir()
            make(upper, tree, backwards)
        layer = write_layer(one, content.blobs, epoch=EPOCH)
        assert write_layer(two, content.blobs, epoch=EPOCH) == layer
        [unpacked] = content.snapshots.ensure([layer], IdMap.identity())
        assert facts(unpacked) == facts(one)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_compressions(tmp_path: Path, compression: str) -> None:
    content = ContentStore(tmp_path / "content")
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/file").write_bytes(os.urandom(3_000_000))
    layer = write_layer(tmp_path / "upper", content.blobs, epoch=0, compression=compression)  # type: ignore[arg-type]
    [tree] = content.snapshots.ensure([layer], IdMap.identity())
    assert (tree / "file").read_bytes() == (tmp_path / "upper/file").read_bytes()


def test_a_sparse_file_is_its_zeros_and_sparse_again(tmp_path: Path) -> None:
    """Where the holes are on this disk is not part of the layer."""
    content, size = ContentStore(tmp_path / "content"), 64 << 20
    layers = []
    for name in ("holes", "zeros"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "file").open("wb") as file:
            if name == "zeros":
                file.write(bytes(size))
            file.truncate(size)
            for at in (0, 5_000_000, 40_000_000):
                file.seek(at)
                file.write(b"island")
        layers.append(write_layer(tmp_path / name, content.blobs, epoch=0))
    assert layers[0] == layers[1]
    [tree] = content.snapshots.ensure(layers[:1], IdMap.identity())
    assert (tree / "file").read_bytes() == (tmp_path / "holes/file").read_bytes()
    assert (tree / "file").stat().st_blocks * 512 < 10 << 20


def test_owners_are_those_that_the_sandbox_saw(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/file").write_text("x")
    os.chown(tmp_path / "upper/file", 100_007, 100_008)
    shifted = IdMap(((0, 100_000, 65536),), ((0, 100_000, 65536),))
    layer = write_layer(tmp_path / "upper", content.blobs, epoch=0, id_map=shifted)
    [tree] = content.snapshots.ensure([layer], IdMap.identity())
    assert ((tree / "file").stat().st_uid, (tree / "file").stat().st_gid) == (7, 8)


def test_gnu_tar_reads_what_is_written(tmp_path: Path) -> None:
    requires("tar")
    content = ContentStore(tmp_path / "content")
    (tmp_path / "upper/deep").mkdir(parents=True)
    (tmp_path / "upper/deep" / ("n" * 150)).write_text("long")
    layer = write_layer(tmp_path / "upper", content.blobs, epoch=0)
    (tmp_path / "out").mkdir()
    blob = content.blobs.path(layer.digest)
    subprocess.run(["tar", "-xzf", blob, "-C", tmp_path / "out"], check=True)
    assert (tmp_path / "out/deep" / ("n" * 150)).read_text() == "long"
    shutil.rmtree(tmp_path / "out")
