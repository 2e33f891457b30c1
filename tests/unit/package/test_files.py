"""The files of a package: merged as the kernel's overlayfs merges them, out of hostile archives."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aos.content.protocol import IdMap
from aos.content.store import ContentStore
from aos.errors import AosError, InvalidArgument, ResourceExhausted
from aos.oci.descriptor import MEDIA_LAYER_TAR
from aos.oci.digest import digest_of
from aos.oci.layer import Layer
from aos.package import files as module
from aos.package.files import layer_files, merge, read_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

Tree = dict[str, tuple[object, ...]]

_NAME = st.sampled_from(["a", "b", "c", "\udcff"])
_LEAF: st.SearchStrategy[tuple[object, ...]] = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=3), st.sampled_from([0o644, 0o4755]), st.integers(0, 2)),
    st.tuples(st.just("link"), st.sampled_from(["a", "../b"])),
    st.just(("whiteout",)),
    st.just(("fifo",)),
)


def _directory() -> st.SearchStrategy[tuple[object, ...]]:
    return st.tuples(st.just("directory"), st.booleans(), st.sampled_from([0o755, 0o700]), _TREE)


_TREE: st.SearchStrategy[Tree] = st.dictionaries(_NAME, _LEAF | st.deferred(_directory), max_size=3)


def tar(*entries: tuple[str, bytes, Mapping[str, object]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, fields in entries:
            made = tarfile.TarInfo(name)
            made.size = len(data)
            for key, value in fields.items():
                setattr(made, key, value)
            archive.addfile(made, io.BytesIO(data))
    return buffer.getvalue()


def entries_of(tree: Tree, above: str = "") -> list[tuple[str, bytes, Mapping[str, object]]]:
    found: list[tuple[str, bytes, Mapping[str, object]]] = []
    for name, what in tree.items():
        path = above + name
        match what:
            case ("file", bytes(data), int(mode), int(owner)):
                found.append((path, data, {"mode": mode, "uid": owner, "gid": owner + 1}))
            case ("link", str(target)):
                found.append((path, b"", {"type": tarfile.SYMTYPE, "linkname": target}))
            case ("fifo",):
                found.append((path, b"", {"type": tarfile.FIFOTYPE, "mode": 0o600}))
            case ("whiteout",):
                found.append((f"{above}.wh.{name}", b"", {}))
            case ("directory", bool(opaque), int(mode), dict(inner)):
                found.append((path, b"", {"type": tarfile.DIRTYPE, "mode": mode}))
                found += [(f"{path}/.wh..wh..opq", b"", {})] * opaque
                found += entries_of(inner, f"{path}/")
    return found


def layer_of(content: ContentStore, data: bytes) -> Layer:
    info = content.blobs.put(data)
    return Layer(info.digest, digest_of(data), info.size, MEDIA_LAYER_TAR)


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """What a mounted file system shows."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, directories, names in os.walk(root):
        for name in [*directories, *names]:
            path = Path(directory, name)
            try:
                status = path.lstat()
            except FileNotFoundError:  # overlayfs lists a whiteout of nothing, and then has no such file
                continue
            link = str(path.readlink()) if path.is_symlink() else ""
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
            mode = None if path.is_symlink() else stat.S_IMODE(status.st_mode)
            found[str(path.relative_to(root))] = (
                stat.S_IFMT(status.st_mode),
                mode,
                status.st_uid,
                status.st_gid,
                link,
                None if content is None else (len(content), hashlib.sha256(content).digest()),
            )
    return found


_FORMATS = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
}


@pytest.mark.root
@settings(max_examples=60, deadline=None)
@given(st.lists(_TREE, min_size=2, max_size=4))
def test_layers_merge_as_the_kernel_merges_them(trees: list[Tree]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        content = ContentStore(Path(directory, "content"))
        layers = [layer_of(content, tar(*entries_of(tree))) for tree in trees]
        lower = content.snapshots.ensure(layers, IdMap.identity())
        mount = Path(directory, "mount")
        mount.mkdir()
        options = "lowerdir=" + ":".join(str(one) for one in reversed(list(dict.fromkeys(lower))))
        if len(set(lower)) == 1:
            empty = Path(directory, "empty")
            empty.mkdir()
            options += f":{empty}"
        if len(set(lower)) != len(lower):
            return  # overlayfs takes each directory once
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(b"overlay", os.fsencode(mount), b"overlay", 1, options.encode()) == 0
        try:
            expected = seen(mount)
        finally:
            assert libc.umount2(os.fsencode(mount), 0) == 0
        read = read_layers(content.blobs, layers)
        merged = merge(read[layer.diff_id] for layer in layers)
        assert {
            path: (
                _FORMATS[file.kind],
                None if file.kind == "symlink" else file.mode,
                file.uid,
                file.gid,
                file.link,
                (file.size, file.content) if file.kind == "file" else None,
            )
            for path, file in merged.files.items()
        } == expected
        assert not set(merged.removed) & set(merged.files)


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def test_what_later_layers_hide_is_known(content: ContentStore) -> None:
    base = layer_of(content, tar(("d/one", b"1" * 10, {}), ("d/two", b"2" * 20, {}), ("three", b"3", {})))
    above = layer_of(content, tar(("d/.wh.one", b"", {}), ("three", b"33", {})))
    merged = merge(layer_files(content.blobs, layer) for layer in (base, above))
    assert {file.path: file.size for file in merged.hidden} == {"d/one": 10, "three": 1}
    assert merged.removed == {"d/one": 1}
    assert {path: file.layer for path, file in merged.files.items()} == {"d/two": 0, "three": 1}


def test_a_hard_link_is_its_file_and_takes_nothing(content: ContentStore) -> None:
    hard = {"type": tarfile.LNKTYPE, "linkname": "./a"}
    made = layer_files(
        content.blobs, layer_of(content, tar(("a", b"data", {"mode": 0o755}), ("b", b"", hard)))
    )
    first, second = made.files
    assert (second.path, second.link, second.size, second.mode) == ("b", "a", 0, 0o755)
    assert second.content == first.content == hashlib.sha256(b"data").digest()


@pytest.mark.parametrize(
    "data",
    [
        tar(("../x", b"", {})),
        tar(("a/../../x", b"", {})),
        tar(("b", b"", {"type": tarfile.LNKTYPE, "linkname": "nowhere"})),
        tar(("a", b"x" * 2000, {}))[:1024],
        tar(("a", b"", {"type": b"Z"})),
        b"\xff" * 10240,
    ],
    ids=["climbs", "climbs-inside", "link-to-nothing", "cut", "unknown-type", "noise"],
)
def test_a_hostile_layer_is_refused_by_name(content: ContentStore, data: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        layer_files(content.blobs, layer_of(content, data))
    assert caught.value.code == "layer-invalid"


def test_a_header_of_a_gigabyte_takes_no_memory(content: ContentStore) -> None:
    header = tarfile.TarInfo("./PaxHeaders/x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    info = content.blobs.put(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 22))
    layer = Layer(info.digest, info.digest, info.size, MEDIA_LAYER_TAR)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument, match="a header of"):
            layer_files(content.blobs, layer)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_too_many_files_are_too_many(content: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 3)
    with pytest.raises(ResourceExhausted) as caught:
        layer_files(content.blobs, layer_of(content, tar(*((str(n), b"", {}) for n in range(4)))))
    assert caught.value.code == "layer-too-many-files"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1500), st.integers(0, 3000))
def test_noise_in_an_archive_is_an_error_of_ours(noise: bytes, position: int) -> None:
    sound = tar(("a", b"x" * 700, {"pax_headers": {"SCHILY.xattr.user.a": "b"}}), ("b" * 200, b"y", {}))
    data = sound[:position] + noise + sound[position + len(noise) :]
    with tempfile.TemporaryDirectory() as directory:
        store = ContentStore(Path(directory))
        try:
            layer_files(store.blobs, layer_of(store, data))
        except AosError as error:
            assert error.code in ("layer-invalid",)


@pytest.mark.root
def test_a_large_package_is_read_in_little_memory(content: ContentStore) -> None:
    """10,000 small files and one of 200 MB: measured in a process of its own."""
    with tempfile.TemporaryFile() as buffer:
        archive = tarfile.open(fileobj=buffer, mode="w")  # noqa: SIM115
        for number in range(10_000):
            made = tarfile.TarInfo(f"d/{number}")
            made.size = 10
            archive.addfile(made, io.BytesIO(b"0123456789"))
        large = tarfile.TarInfo("large")
        large.size = 200 << 20
        with Path("/dev/zero").open("rb") as zero:
            archive.addfile(large, zero)
        archive.close()
        buffer.seek(0)
        with content.blobs.writer() as writer:
            while piece := buffer.read(1 << 20):
                writer.write(piece)
            info = writer.commit()
    program = (
        "import pathlib\n"
        "from aos.content.store import ContentStore\n"
        "from aos.oci.layer import Layer\n"
        "from aos.package.files import layer_files\n"
        f"layer = Layer({info.digest!r}, {info.digest!r}, {info.size}, {MEDIA_LAYER_TAR!r})\n"
        f"store = ContentStore(pathlib.Path({str(content.blobs.path(info.digest).parents[2])!r}))\n"
        "made = layer_files(store.blobs, layer)\n"
        "assert len(made.files) == 10_001\n"
        # Of this program alone: getrusage's figure begins with what the parent had at the fork.
        "[line] = [it for it in open('/proc/self/status') if it.startswith('VmHWM')]\n"
        "print(line.split()[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # KiB
