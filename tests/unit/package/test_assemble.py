from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from aos.content.blobs import BlobStore
from aos.oci.image import History, ImageSpec
from aos.oci.manifest import Manifest
from aos.package import BuiltLayer, LayerFacts, assemble, layer_facts, load_package
from package_making import DEFINITION, built_layer, image, make_package

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def test_what_is_assembled_is_loaded(blobs: BlobStore) -> None:
    package = make_package(blobs)
    loaded = load_package(blobs, package.manifest_digest)
    assert loaded == package
    assert (loaded.name, loaded.version, loaded.definition) == ("hello", "1.2.0", DEFINITION)
    assert loaded.size == sum(layer.size for layer in loaded.layers)


def test_the_config_is_what_other_tools_run(blobs: BlobStore) -> None:
    package = make_package(blobs)
    manifest = Manifest.from_bytes(blobs.read(package.manifest_digest))
    config = json.loads(blobs.read(manifest.config.digest))
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert config["architecture"] == "amd64"
    assert config["config"]["Env"] == ["PATH=/bin", "A=b"]
    assert config["config"]["Entrypoint"] == ["/bin/hello"]
    assert config["config"]["Cmd"] == ["world"]
    assert config["config"]["WorkingDir"] == "/srv"
    assert config["config"]["User"] == "1000:1000"
    assert config["config"]["StopSignal"] == "SIGINT"
    assert json.loads(config["config"]["Labels"]["aos.openos.dev/definition"]) == DEFINITION
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in package.layers]
    assert manifest.annotations == {
        "org.opencontainers.image.title": "hello",
        "org.opencontainers.image.version": "1.2.0",
        "org.opencontainers.image.description": "Says hello",
    }


def test_the_same_input_gives_the_same_digest_in_any_store(tmp_path: Path) -> None:
    one, other = (make_package(BlobStore(tmp_path / name)) for name in ("one", "other"))
    assert one.manifest_digest == other.manifest_digest
    definition = dict(reversed(DEFINITION.items()))
    again = make_package(BlobStore(tmp_path / "third"), **definition)
    assert again.manifest_digest == one.manifest_digest


@pytest.mark.parametrize("change", [{"metadata": {"name": "hello", "version": "1.2.1"}}, {"entrypoint": {}}])
def test_every_fact_is_under_the_digest(blobs: BlobStore, change: dict[str, object]) -> None:
    assert make_package(blobs, **change).manifest_digest != make_package(blobs).manifest_digest


def test_a_time_of_ones_own(blobs: BlobStore) -> None:
    made = assemble(blobs, definition_json=DEFINITION, image=image(created="2024-01-01T00:00:00Z"), layers=[])
    assert made.image.created == "2024-01-01T00:00:00Z"
    assert made.image.history[-1].created == "2024-01-01T00:00:00Z"


def test_every_layer_tells_where_it_came_from(blobs: BlobStore) -> None:
    package = make_package(blobs)
    assert layer_facts(package) == (
        LayerFacts("copy . /", "key-copy . /", ""),
        LayerFacts("run: make", "key-run: make", ""),
    )
    assert [(entry.created_by, entry.empty_layer) for entry in package.image.history] == [
        ("copy . /", False),
        ("run: make", False),
        ("aos: configuration", True),
    ]


def history(*entries: tuple[str, bool]) -> tuple[History, ...]:
    return tuple(History(created_by=text, empty_layer=empty) for text, empty in entries)


def test_the_history_of_a_base_is_kept(blobs: BlobStore) -> None:
    base, own = built_layer(blobs, {"a": b"1"}, "base"), built_layer(blobs, {"b": b"2"}, "own")
    inherited = history(("ADD rootfs", False), ("CMD sh", True))
    made = assemble(
        blobs,
        definition_json=DEFINITION,
        image=image(diff_ids=(base.layer.diff_id,), history=inherited),
        layers=[base, own],
    )
    assert made.image.history[:2] == inherited
    assert [entry.created_by for entry in made.image.history[2:]] == ["own", "aos: configuration"]


@pytest.mark.parametrize(
    "inherited", [(), history(("one", False), ("two", False)), history(("empty only", True))]
)
def test_a_history_that_does_not_fit_is_written_anew(
    blobs: BlobStore, inherited: tuple[History, ...]
) -> None:
    base, own = built_layer(blobs, {"a": b"1"}, "base"), built_layer(blobs, {"b": b"2"}, "own")
    made = assemble(
        blobs,
        definition_json=DEFINITION,
        image=image(diff_ids=(base.layer.diff_id,), history=inherited),
        layers=[base, own],
    )
    assert [entry.created_by for entry in made.image.history] == ["base", "own", "aos: configuration"]


def test_a_base_whose_layers_were_replaced_has_no_say(blobs: BlobStore) -> None:
    base, own = built_layer(blobs, {"a": b"1"}, "base"), built_layer(blobs, {"b": b"2"}, "own")
    made = assemble(
        blobs,
        definition_json=DEFINITION,
        image=image(diff_ids=(base.layer.diff_id,), history=history(("x", False))),
        layers=[own],
    )
    assert [entry.created_by for entry in made.image.history] == ["own", "aos: configuration"]
    assert made.image.diff_ids == (own.layer.diff_id,)


def test_a_package_without_layers(blobs: BlobStore) -> None:
    made = assemble(blobs, definition_json=DEFINITION, image=ImageSpec("amd64"), layers=list[BuiltLayer]())
    assert load_package(blobs, made.manifest_digest).layers == ()
