"""Random changes on a real overlay, committed to a layer: the same tree comes out of everything that unpacks it.

The kernel says what the changes mean (the mounted overlay), umoci unpacks the image as a peer does, and what a
build adopts without unpacking is compared with what unpacking gives, to the last attribute.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aos.build.layers.commit import write_layer
from aos.build.layers.upper import settle
from aos.content.protocol import IdMap
from aos.content.snapshots import SnapshotStore
from aos.content.store import ContentStore
from aos.content.tree import LayerTree
from aos.package import BuiltLayer, assemble, write_layout
from fix_installation import requires
from package_making import DEFINITION, image
from tree_facts import facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aos.oci.layer import Layer

pytestmark = pytest.mark.root

EPOCH = 1_700_000_000
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service, as security.capability holds it."""

_NAME = st.sampled_from(["a", "b", "é", "with space", "n" * 130, "\udcff", "new\nline"])
_PATH = st.lists(_NAME, min_size=1, max_size=3).map("/".join)
_CHANGE = st.one_of(
    st.tuples(st.just("write"), _PATH, st.binary(max_size=1500)),
    st.tuples(st.just("sparse"), _PATH, st.integers(0, 3_000_000)),
    st.tuples(st.just("directory"), _PATH),
    st.tuples(st.just("empty"), _PATH),
    st.tuples(st.just("remove"), _PATH),
    st.tuples(st.just("symlink"), _PATH, st.sampled_from(["a", "../b", "/does/not/exist", "n" * 140])),
    st.tuples(st.just("link"), _PATH, _PATH),
    st.tuples(st.just("rename"), _PATH, _PATH),
    st.tuples(st.just("mode"), _PATH, st.sampled_from([0o600, 0o4755, 0o1777, 0o2750])),
    st.tuples(st.just("owner"), _PATH, st.integers(0, 3_000_000)),
    st.tuples(st.just("note"), _PATH, st.binary(max_size=40)),
    st.tuples(st.just("capability"), _PATH),
    st.tuples(
        st.just("node"), _PATH, st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
    ),
    st.tuples(st.just("date"), _PATH, st.integers(0, 2_000_000_000_000_000_000)),
)
_CHANGES = st.lists(_CHANGE, max_size=14)


def change(root: Path, changes: Sequence[tuple[object, ...]]) -> None:
    """Do what can be done of it, as a step would; never through a link, which may lead out."""
    for what in changes:
        paths = [str(one) for one in what[1:] if isinstance(one, str)]
        if what[0] == "symlink":
            paths = paths[:1]
        if not any(_through_a_link(root, path) for path in paths):
            with contextlib.suppress(
                FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError
            ):
                _change(root, what)


def _through_a_link(root: Path, path: str) -> bool:
    parts = path.split("/")
    return any(root.joinpath(*parts[:count]).is_symlink() for count in range(1, len(parts)))


def _change(root: Path, what: tuple[object, ...]) -> None:
    path = root / str(what[1])
    if what[0] in ("write", "sparse", "empty") and path.is_symlink():
        return
    if what[0] in ("write", "sparse") and path.exists() and not path.is_file():
        return  # opening a FIFO waits, and a device is the host's
    if what[0] == "empty" and not path.is_dir():
        return  # Python's rmtree opens whatever it is given
    match what:
        case ("write", _, bytes(data)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        case ("sparse", _, int(at)):
            with path.open("wb") as file:
                file.truncate(3_500_000)
                file.seek(at)
                file.write(b"island")
        case ("directory", _):
            path.mkdir(parents=True)
        case ("empty", _):  # on top of a directory from below: an opaque one
            shutil.rmtree(path)
            path.mkdir()
        case ("remove", _):
            path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
        case ("symlink", _, str(target)):
            path.symlink_to(target)
        case ("link", _, str(other)):
            if not path.is_dir():
                os.link(path, root / other, follow_symlinks=False)
        case ("rename", _, str(other)):
            with contextlib.suppress(OSError):  # a directory into itself, or one from below (EXDEV)
                path.rename(root / other)
        case ("mode", _, int(mode)):
            if not path.is_symlink():
                path.chmod(mode)
        case ("owner", _, int(owner)):
            os.chown(path, owner, owner // 2, follow_symlinks=False)
        case ("note", _, bytes(data)):
            if path.is_file() and not path.is_symlink():
                os.setxattr(path, "user.note", data)
        case ("capability", _):
            if path.is_file() and not path.is_symlink():
                os.setxattr(path, "security.capability", CAPABILITY)
        case ("node", _, int(kind)):
            os.mknod(path, kind | 0o640, os.makedev(1, 3))
        case ("date", _, int(ns)):
            os.utime(path, ns=(ns, ns), follow_symlinks=False)


@contextlib.contextmanager
def overlay(target: Path, lowers: Sequence[Path], upper: Path | None = None) -> Iterator[Path]:
    """Mount layers (base first) as the runtime does; with `upper`, writable."""
    target.mkdir(exist_ok=True)
    options = "redirect_dir=off,index=off,metacopy=off,lowerdir=" + ":".join(map(str, reversed(lowers)))
    if upper is not None:
        work = upper.with_name(upper.name + ".work")
        work.mkdir()
        options += f",upperdir={upper},workdir={work}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"overlay", bytes(target), b"overlay", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {options}")
    try:
        yield target
    finally:
        assert libc.umount2(bytes(target), 0) == 0


def unpacked_by_umoci(home: Path, content: ContentStore, layers: Sequence[Layer]) -> Path:
    built = [BuiltLayer(layer, f"run {number}", "key", "") for number, layer in enumerate(layers)]
    package = assemble(content.blobs, definition_json=DEFINITION, image=image(), layers=built)
    write_layout(package, content.blobs, home / "layout")
    bundle = home / "bundle"
    argv = ["umoci", "unpack", "--image", f"{home / 'layout'}:1.2.0", str(bundle)]
    subprocess.run(argv, check=True, capture_output=True)
    return bundle / "rootfs"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_CHANGES, _CHANGES, st.sampled_from(["gzip", "zstd", "none"]))
@example(  # whiteouts, an opaque directory, links over directories, a file that breaks its link
    [
        ("write", "a/b/a", b"1"),
        ("write", "b/a", b"2"),
        ("link", "b/a", "b/b"),
        ("write", "é/a", b"3"),
        ("mode", "b", 0o2750),
    ],
    [
        ("empty", "a/b"),
        ("write", "a/b/new\nline", b"4"),
        ("remove", "é"),
        ("write", "é", b"no directory any more"),
        ("link", "b/a", "a/\udcff"),
        ("capability", "b/a"),
        ("sparse", "b/n" + "n" * 129, 1_500_000),
        ("owner", "b/a", 3_000_000),
    ],
    "gzip",
)
@example([], [("write", "a", b"x"), ("node", "b", stat.S_IFSOCK), ("date", "a", 5_000_000_001)], "gzip")
def test_changes_on_an_overlay_come_out_the_same_everywhere(
    base: list[tuple[object, ...]], changes: list[tuple[object, ...]], compression: str
) -> None:
    requires("umoci")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        content = ContentStore(home / "content")
        ground, upper = home / "ground", home / "upper"
        for directory in (ground, upper):
            directory.mkdir(mode=0o755)
        change(ground, base)
        settle(ground, LayerTree(()), epoch=EPOCH, since_ns=2**63)
        first = write_layer(ground, content.blobs, epoch=EPOCH, compression=compression)  # type: ignore[arg-type]
        [below] = content.snapshots.ensure([first], IdMap.identity())

        with overlay(home / "merged", [below], upper) as merged:
            change(merged, changes)
            meant = facts(merged, dates=1, epoch=EPOCH)
        assert settle(upper, LayerTree((below,)), epoch=EPOCH, since_ns=2**63)
        second = write_layer(upper, content.blobs, epoch=EPOCH, compression=compression)  # type: ignore[arg-type]
        content.snapshots.adopt(second, upper)
        assert second.diff_id == first.diff_id or not upper.exists()
        layers = [first, second]
        _, adopted = content.snapshots.ensure(layers, IdMap.identity())
        _, unpacked = SnapshotStore(home / "other", content.blobs).ensure(layers, IdMap.identity())

        assert facts(adopted, dates=2) == facts(unpacked, dates=2)
        assert _root(adopted) == _root(unpacked)
        assert write_layer(unpacked, content.blobs, epoch=EPOCH, compression=compression) == second  # type: ignore[arg-type]
        for top in (adopted, unpacked):
            if top.name != below.name:  # the kernel takes no directory twice
                with overlay(home / "merged", [below, top]) as merged:
                    assert facts(merged, dates=1) == meant
        if compression != "zstd":  # umoci knows no zstd
            assert facts(unpacked_by_umoci(home, content, layers), dates=1) == meant


def _root(tree: Path) -> tuple[object, ...]:
    status = tree.stat()
    return status.st_mode, status.st_uid, status.st_gid, sorted(os.listxattr(tree))
