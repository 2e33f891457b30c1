from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from aos.content.blobs import BlobStore
from aos.errors import AosError, DataLoss, InvalidArgument, NotFound
from aos.oci.digest import Digest, digest_of
from aos.oci.index import Platform
from aos.oci.manifest import Manifest
from aos.package import Package, layer_facts, load_package, package_children
from package_making import make_package

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


@pytest.fixture
def package(blobs: BlobStore) -> Package:
    return make_package(blobs)


def put(blobs: BlobStore, value: object) -> Digest:
    return blobs.put(json.dumps(value).encode()).digest


def manifest(blobs: BlobStore, package: Package) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blobs.read(package.manifest_digest))
    return found


def with_config(blobs: BlobStore, package: Package, change: Callable[[dict[str, Any]], object]) -> Digest:
    """The package with another config; the digest of its manifest."""
    raw = manifest(blobs, package)
    config = json.loads(blobs.read(raw["config"]["digest"]))
    change(config)
    stored = blobs.put(json.dumps(config).encode())
    raw["config"] |= {"digest": stored.digest, "size": stored.size}
    return put(blobs, raw)


def index(blobs: BlobStore, *entries: tuple[Digest, str], media: str = MANIFEST) -> Digest:
    manifests = []
    for digest, platform in entries:
        os_name, _, architecture = platform.partition("/")
        item: dict[str, Any] = {"mediaType": media, "digest": digest, "size": 1}
        if platform:
            item["platform"] = {"os": os_name, "architecture": architecture}
        manifests.append(item)
    return put(blobs, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})


def refused(kind: type[AosError], code: str, blobs: BlobStore, digest: Digest) -> AosError:
    with pytest.raises(kind) as caught:
        load_package(blobs, digest, platform=Platform("linux", "amd64"))
    assert caught.value.code == code, caught.value.message
    return caught.value


def test_an_index_leads_to_the_platforms_manifest(blobs: BlobStore, package: Package) -> None:
    found = index(blobs, (digest_of(b"not here"), "linux/arm64"), (package.manifest_digest, "linux/amd64"))
    loaded = load_package(blobs, found, platform=Platform("linux", "amd64"))
    assert loaded.manifest_digest == package.manifest_digest
    nested = index(blobs, (found, ""), media=INDEX)
    assert load_package(blobs, nested, platform=Platform("linux", "amd64")) == loaded


def test_an_index_without_the_platform_says_what_it_has(blobs: BlobStore, package: Package) -> None:
    found = index(blobs, (package.manifest_digest, "linux/arm64"), (package.manifest_digest, "linux/s390x"))
    assert "linux/arm64, linux/s390x" in str(refused(NotFound, "platform-not-found", blobs, found).hint)


def test_indexes_all_the_way_down(blobs: BlobStore, package: Package) -> None:
    digest = package.manifest_digest
    for _ in range(5):
        digest = index(blobs, (digest, ""))
    refused(InvalidArgument, "not-an-image", blobs, digest)


def test_a_foreign_image_has_no_definition(blobs: BlobStore, package: Package) -> None:
    digest = with_config(blobs, package, lambda config: config["config"].pop("Labels"))
    foreign = load_package(blobs, digest)
    assert (foreign.definition, foreign.name, foreign.version) == (None, "", "")
    assert [facts.created_by for facts in layer_facts(foreign)] == ["copy . /", "run: make"]
    without = load_package(blobs, with_config(blobs, foreign, lambda config: config.pop("history")))
    assert [facts.created_by for facts in layer_facts(without)] == ["", ""]


def test_what_is_not_there(blobs: BlobStore, package: Package) -> None:
    refused(NotFound, "blob-not-found", blobs, digest_of(b"nothing"))
    blobs.delete(package.layers[1].digest)
    refused(NotFound, "blob-not-found", blobs, package.manifest_digest)


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_bytes_that_changed(blobs: BlobStore, package: Package, which: str) -> None:
    raw = manifest(blobs, package)
    digest = package.manifest_digest if which == "manifest" else Digest(raw["config"]["digest"])
    path = blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"hello", b"hullo"))
    refused(DataLoss, "digest-mismatch", blobs, package.manifest_digest)


@pytest.mark.parametrize("which", ["layer", "config"])
def test_a_blob_of_another_size(blobs: BlobStore, package: Package, which: str) -> None:
    raw = manifest(blobs, package)
    path = blobs.path(package.layers[0].digest if which == "layer" else Digest(raw["config"]["digest"]))
    path.chmod(0o644)
    os.truncate(path, 10)
    refused(DataLoss, "size-mismatch", blobs, package.manifest_digest)


def test_a_layer_is_no_manifest(blobs: BlobStore, package: Package) -> None:
    refused(InvalidArgument, "not-an-image", blobs, package.layers[0].digest)
    refused(InvalidArgument, "document-too-large", blobs, blobs.put(bytes(5 << 20)).digest)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda config: config["rootfs"]["diff_ids"].pop(), "package-invalid"),
        (lambda config: config["config"]["Labels"].update({"aos.openos.dev/definition": "{"}), "package-invalid"),
        (lambda config: config["config"]["Labels"].update({"aos.openos.dev/definition": "[]"}), "package-invalid"),
        (lambda config: config["config"]["Labels"].update({"aos.openos.dev/layers": "[]"}), "package-invalid"),
        (lambda config: config["config"]["Labels"].update({"aos.openos.dev/layers": "[1, 2]"}), "package-invalid"),
        (lambda config: config["config"]["Labels"].update({"aos.openos.dev/layers": '[{"stage": 1}, {}]'}), "package-invalid"),
        (lambda config: config["config"]["Labels"].update({"aos.openos.dev/layers": "[" * 100_000}), "package-invalid"),
        (lambda config: config.pop("rootfs"), "image-config-invalid"),
    ],
)  # fmt: skip
def test_a_config_that_lies(
    blobs: BlobStore, package: Package, change: Callable[[dict[str, Any]], object], code: str
) -> None:
    refused(InvalidArgument, code, blobs, with_config(blobs, package, change))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[[[",
        b"[" * 100_000,
        b'{"layers": 7}',
        b'{"manifests": 7}',
        b'{"manifests": [{}]}',
        b'{"schemaVersion": 2, "config": {"mediaType": "x", "digest": "sha256:0", "size": -1}, "layers": []}',
        b"\xff\xfe",
    ],
)
def test_rubbish_is_refused_politely(blobs: BlobStore, raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        load_package(blobs, blobs.put(raw).digest)


def test_children_for_the_garbage_collector(blobs: BlobStore, package: Package) -> None:
    children = package_children(blobs)
    config = Manifest.from_bytes(blobs.read(package.manifest_digest)).config.digest
    layers = [layer.digest for layer in package.layers]
    assert set(children(package.manifest_digest)) == {config, *layers}
    found = index(blobs, (package.manifest_digest, "linux/amd64"), (digest_of(b"not here"), "linux/arm64"))
    assert set(children(found)) == {package.manifest_digest, digest_of(b"not here")}
    for leaf in (config, *layers, digest_of(b"not here"), blobs.put(bytes(5 << 20)).digest):
        assert list(children(leaf)) == []


def test_children_of_odd_documents(blobs: BlobStore) -> None:
    children = package_children(blobs)
    odd_ones: list[object] = [
        {"layers": 7},
        {"layers": [7, {}]},
        {"config": {"Env": []}},
        {"manifests": {"a": 1}},
    ]
    for value in odd_ones:
        assert list(children(put(blobs, value))) == []
    assert list(children(blobs.put(b"{ not json").digest)) == []


def test_children_of_a_damaged_manifest_stop_the_collection(blobs: BlobStore, package: Package) -> None:
    path = blobs.path(package.manifest_digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataLoss):
        package_children(blobs)(package.manifest_digest)
