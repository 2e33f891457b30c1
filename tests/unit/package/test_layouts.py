"""Layouts written and read: directories and archives, whole, damaged and hostile."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from aos.content.blobs import BlobStore
from aos.errors import AlreadyExists, AosError, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from aos.package import (
    Check,
    Package,
    load_package,
    read_layout,
    verify_package,
    write,
    write_archive,
    write_layout,
)
from aos.package.layouts import open_layout
from aos.package.sidecars import SIDECARS
from package_making import make_package

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "here")


@pytest.fixture
def other(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "there")


@pytest.fixture
def package(blobs: BlobStore) -> Package:
    return make_package(blobs)


@pytest.fixture
def layout(tmp_path: Path, package: Package, blobs: BlobStore) -> Path:
    write_layout(package, blobs, tmp_path / "layout")
    return tmp_path / "layout"


def refused(kind: type[AosError], code: str, path: Path, other: BlobStore, *, tag: str = "") -> AosError:
    with pytest.raises(kind) as caught:
        read_layout(path, other, tag=tag)
    assert caught.value.code == code, caught.value.message
    assert not list(other.list())
    return caught.value


def test_a_layout_is_complete(layout: Path, package: Package) -> None:
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    assert entry["digest"] == package.manifest_digest
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "1.2.0",
        "io.containerd.image.name": "hello:1.2.0",
    }
    assert json.loads((layout / "manifest.json").read_bytes()) == package.definition
    layers = json.loads((layout / "layers.json").read_bytes())
    assert (layers["name"], layers["version"], layers["digest"]) == (
        "hello",
        "1.2.0",
        package.manifest_digest,
    )
    assert layers["layers"][1] == {
        "digest": package.layers[1].digest,
        "diff_id": package.layers[1].diff_id,
        "size": package.layers[1].size,
        "created_by": "run: make",
        "cache_key": "key-run: make",
        "stage": "",
    }
    signature = json.loads((layout / "signature.json").read_bytes())
    assert signature == {"digest": package.manifest_digest, "signatures": []}
    assert len(list((layout / "blobs/sha256").iterdir())) == 4


def test_a_layout_comes_back(layout: Path, package: Package, other: BlobStore) -> None:
    kept: list[str] = []
    assert read_layout(layout, other, keep=kept.append) == [("1.2.0", package)]
    assert {blob.digest for blob in other.list()} == set(kept)
    assert all(check.problem is None for check in verify_package(package, other))


def test_an_archive_comes_back_and_is_reproducible(
    tmp_path: Path, package: Package, blobs: BlobStore, other: BlobStore
) -> None:
    for name in ("one.tar", "two.tar"):
        write_archive(package, blobs, tmp_path / name)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert read_layout(tmp_path / "one.tar", other) == [("1.2.0", package)]
    assert {path.name for path in tmp_path.iterdir()} >= {"one.tar", "two.tar"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_layout_without_sidecars_is_fine(layout: Path, package: Package, other: BlobStore) -> None:
    for name in SIDECARS:
        (layout / name).unlink()
    assert read_layout(layout, other) == [("1.2.0", package)]


@pytest.mark.parametrize(
    ("file", "old", "new", "field"),
    [
        ("manifest.json", b'"world"', b'"moon"', "entrypoint.args[0]"),
        ("manifest.json", b'"description": "Says hello",', b"", "metadata.description"),
        ("manifest.json", b'"version": "1.2.0"', b'"version": 1.2', "metadata.version"),
        ("layers.json", b'"run: make"', b'"run: rm"', "layers[1].created_by"),
        ("layers.json", b'"version": "1.2.0"', b'"version": "9.9.9"', "version"),
        ("layers.json", b'"digest": "sha256:', b'"digest": "sha512:', "digest"),
        ("layers.json", b'"layers": [', b'"layers": [{}, ', "layers[0].cache_key"),
        ("signature.json", b'"signatures": []', b'"signatures": ["mine"]', "signatures[0]"),
        ("signature.json", b'"signatures": []', b'"signatures": [], "more": 1', "more"),
        ("signature.json", b"{", b"[", ""),
        ("manifest.json", b"{", b"", ""),
    ],
)
def test_a_sidecar_that_says_something_else(
    layout: Path, other: BlobStore, file: str, old: bytes, new: bytes, field: str
) -> None:
    data = (layout / file).read_bytes()
    assert old in data
    (layout / file).write_bytes(
        data.replace(old, new) if file == "layers.json" and field == "digest" else data.replace(old, new, 1)
    )
    error = refused(DataLoss, "sidecar-mismatch", layout, other)
    assert error.subject == {"file": file, "field": field}
    assert file in error.message


def test_sidecars_beside_a_second_image(
    layout: Path, blobs: BlobStore, package: Package, other: BlobStore
) -> None:
    """Another tool added an image to our directory: the sidecars still describe the first."""
    second = make_package(blobs, metadata={"name": "second", "version": "2.0.0"})
    index = json.loads((layout / "index.json").read_bytes())
    data = blobs.read(second.manifest_digest)
    index["manifests"].append(
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": second.manifest_digest,
            "size": len(data),
            "annotations": {"org.opencontainers.image.ref.name": "other"},
        }
    )
    (layout / "index.json").write_text(json.dumps(index))
    for blob in blobs.list():
        (layout / "blobs/sha256" / blob.digest[7:]).write_bytes(blobs.read(blob.digest))
    assert read_layout(layout, other) == [("1.2.0", package), ("other", second)]
    assert read_layout(layout, other, tag="other") == [("other", second)]


def test_a_manifest_json_that_is_dockers(tmp_path: Path, blobs: BlobStore, other: BlobStore) -> None:
    """`docker save` writes an OCI layout with a manifest.json of its own format beside it."""
    package = make_package(blobs)
    manifest = json.loads(blobs.read(package.manifest_digest))
    config = json.loads(blobs.read(manifest["config"]["digest"]))
    del config["config"]["Labels"]
    stored = blobs.put(json.dumps(config).encode())
    manifest["config"] |= {"digest": stored.digest, "size": stored.size}
    foreign = load_package(blobs, blobs.put(json.dumps(manifest).encode()).digest)
    write_layout(foreign, blobs, tmp_path / "foreign")
    (tmp_path / "foreign/layers.json").unlink()
    (tmp_path / "foreign/manifest.json").write_text('[{"Config": "blobs/sha256/0", "Layers": []}]')
    assert read_layout(tmp_path / "foreign", other) == [("latest", foreign)]


def test_a_tag_that_is_not_there(layout: Path, other: BlobStore) -> None:
    assert "'1.2.0'" in (refused(NotFound, "package-not-found", layout, other, tag="2").hint or "")


def test_a_path_that_is_not_there(tmp_path: Path, other: BlobStore) -> None:
    refused(NotFound, "layout-not-found", tmp_path / "none", other)


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"imageLayoutVersion": 1}', '{"imageLayoutVersion": "2.0"}']
)
def test_what_is_no_layout(layout: Path, other: BlobStore, text: str | None) -> None:
    (layout / "oci-layout").unlink()
    if text is not None:
        (layout / "oci-layout").write_text(text)
    refused(InvalidArgument, "layout-invalid", layout, other)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "layout-invalid"),
        ("{", "index-invalid"),
        ('{"manifests": []}', "layout-invalid"),
        ('{"manifests": [{}]}', "descriptor-invalid"),
        ('{"manifests": [], "layers": []}', "index-invalid"),
        (" " * (5 << 20), "layout-invalid"),
    ],
)
def test_an_index_that_is_none(layout: Path, other: BlobStore, text: str | None, code: str) -> None:
    (layout / "index.json").unlink()
    if text is not None:
        (layout / "index.json").write_text(text)
    refused(InvalidArgument, code, layout, other)


def largest(layout: Path) -> Path:
    return max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)


def test_a_missing_blob(layout: Path, other: BlobStore) -> None:
    largest(layout).unlink()
    refused(NotFound, "blob-not-found", layout, other)


def test_a_truncated_blob(layout: Path, other: BlobStore, package: Package) -> None:
    os.truncate(layout / "blobs/sha256" / package.layers[0].digest[7:], 20)
    refused(DataLoss, "size-mismatch", layout, other)


def test_a_changed_blob_is_never_stored(layout: Path, other: BlobStore, package: Package) -> None:
    file = layout / "blobs/sha256" / package.layers[0].digest[7:]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataLoss) as caught:
        read_layout(layout, other)
    assert caught.value.code == "digest-mismatch"
    assert not other.exists(package.layers[0].digest)
    assert not other.exists(package.manifest_digest)


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_a_blob_that_is_no_file(layout: Path, other: BlobStore, package: Package, kind: str) -> None:
    file = layout / "blobs/sha256" / package.layers[0].digest[7:]
    file.unlink()
    os.mkfifo(file) if kind == "fifo" else file.mkdir()
    refused(InvalidArgument, "layout-invalid", layout, other)


# Archives


def archive(tmp_path: Path, *members: tuple[tarfile.TarInfo | str, bytes]) -> Path:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as out:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def test_what_is_no_archive(tmp_path: Path, other: BlobStore) -> None:
    (tmp_path / "file").write_bytes(b"no tar at all" * 100)
    refused(InvalidArgument, "layout-invalid", tmp_path / "file", other)
    (tmp_path / "file").write_bytes(b"")
    refused(InvalidArgument, "layout-invalid", tmp_path / "file", other)


def test_a_member_twice(tmp_path: Path, other: BlobStore) -> None:
    marker = b'{"imageLayoutVersion":"1.0.0"}'
    path = archive(
        tmp_path, ("oci-layout", marker), ("index.json", b"{}"), ("./index.json", b'{"manifests":[]}')
    )
    assert "twice" in refused(InvalidArgument, "layout-invalid", path, other).message


def test_a_truncated_archive(tmp_path: Path, package: Package, blobs: BlobStore, other: BlobStore) -> None:
    write_archive(package, blobs, tmp_path / "a.tar")
    size = (tmp_path / "a.tar").stat().st_size
    for length in (size // 3, size // 2, 700):
        os.truncate(tmp_path / "a.tar", length)
        with pytest.raises(AosError):
            read_layout(tmp_path / "a.tar", other)
        assert not other.exists(package.manifest_digest)


def test_members_that_climb_and_links_have_no_effect(
    tmp_path: Path, layout: Path, package: Package, other: BlobStore
) -> None:
    link, device = tarfile.TarInfo("blobs/sha256/" + "0" * 64), tarfile.TarInfo("dev")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [
        ("../../climbed", b"x"),
        (str(tmp_path / "absolute"), b"x"),
        (link, b""),
        (device, b""),
    ]
    members += [
        (str(file.relative_to(layout)), file.read_bytes())
        for file in sorted(layout.rglob("*"))
        if file.is_file()
    ]
    path = archive(tmp_path, *members)
    assert read_layout(path, other) == [("1.2.0", package)]
    assert not (tmp_path / "absolute").exists()
    assert not (tmp_path.parent / "climbed").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_in_place_of_a_document(tmp_path: Path, other: BlobStore, kind: bytes) -> None:
    link = tarfile.TarInfo("oci-layout")
    link.type, link.linkname = kind, "index.json"
    path = archive(tmp_path, ("index.json", b'{"imageLayoutVersion":"1.0.0"}'), (link, b""))
    refused(InvalidArgument, "layout-invalid", path, other)


# Writing


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_our_own_layout_is_replaced(tmp_path: Path, layout: Path, blobs: BlobStore, other: BlobStore) -> None:
    second = make_package(blobs, metadata={"name": "second", "version": "2.0.0+b"})
    write_layout(second, blobs, layout, tag="stable")
    assert [(name, package.name) for name, package in read_layout(layout, other)] == [("stable", "second")]
    assert names(tmp_path) == {"here", "there", "layout"}


def test_replacing_where_the_kernel_cannot_exchange(
    tmp_path: Path, layout: Path, package: Package, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_exchange", lambda one, two: False)
    write_layout(package, blobs, layout)
    assert names(tmp_path) == {"here", "layout"}


def test_an_empty_directory_and_missing_parents(tmp_path: Path, package: Package, blobs: BlobStore) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a/b/c"):
        write_layout(package, blobs, path)
        assert (path / "index.json").exists()


@pytest.mark.parametrize("content", ["notes.txt", "oci-layout", ".git"])
def test_a_directory_with_other_things_is_left_alone(
    tmp_path: Path, package: Package, blobs: BlobStore, content: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / content).write_text("precious")
    with pytest.raises(AlreadyExists) as caught:
        write_layout(package, blobs, tmp_path / "mine")
    assert caught.value.code == "directory-not-ours"
    assert (tmp_path / "mine" / content).read_text() == "precious"


def test_our_layout_with_a_strange_file_is_left_alone(
    layout: Path, package: Package, blobs: BlobStore
) -> None:
    (layout / "notes.txt").write_text("precious")
    with pytest.raises(AlreadyExists):
        write_layout(package, blobs, layout)


def test_a_file_in_the_way(tmp_path: Path, package: Package, blobs: BlobStore) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(AlreadyExists):
        write_layout(package, blobs, tmp_path / "file")
    with pytest.raises(AlreadyExists):
        write_archive(package, blobs, tmp_path / "here")


def test_a_damaged_store_writes_nothing(tmp_path: Path, package: Package, blobs: BlobStore) -> None:
    path = blobs.path(package.layers[1].digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for write_it in (write_layout, write_archive):
        with pytest.raises(DataLoss):
            write_it(package, blobs, tmp_path / "out")
    assert names(tmp_path) == {"here"}


def test_a_full_disk_leaves_the_old_layout(
    tmp_path: Path, layout: Path, package: Package, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (layout / "index.json").stat()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_layout(package, blobs, layout)
    assert (layout / "index.json").stat() == before
    assert names(tmp_path) == {"here", "layout"}


def test_a_directory_that_cannot_be_renamed(
    tmp_path: Path, package: Package, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("pathlib.Path.rename", busy)
    with pytest.raises(FailedPrecondition) as caught:
        write_layout(package, blobs, tmp_path / "out")
    assert caught.value.code == "directory-in-use"


# Verification


def problems(checks: list[Check]) -> list[str]:
    return [check.problem.code for check in checks if check.problem is not None]


def test_verify_names_every_blob(package: Package, blobs: BlobStore) -> None:
    checks = list(verify_package(package, blobs))
    assert [check.what for check in checks] == ["manifest", "config", "layer", "layer"]
    assert not problems(checks)


def test_verify_goes_on_after_a_problem(layout: Path, package: Package) -> None:
    for layer in package.layers:
        file = layout / "blobs/sha256" / layer.digest[7:]
        data = bytearray(file.read_bytes())
        data[-1] ^= 1  # the length in the gzip trailer
        file.write_bytes(data)
    with open_layout(layout) as opened:
        checks = list(verify_package(package, opened))
    assert len(problems(checks)) == 2
    assert set(problems(checks)) <= {"digest-mismatch", "layer-invalid", "layer-truncated"}


def test_verify_sees_a_diff_id_that_lies(package: Package, blobs: BlobStore) -> None:
    import dataclasses

    one, two = package.layers
    swapped = dataclasses.replace(one, diff_id=two.diff_id)
    lying = dataclasses.replace(package, layers=(swapped, two))
    assert problems(list(verify_package(lying, blobs))) == ["diff-id-mismatch"]
