from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from aos.content.gc import collect
from aos.content.store import ContentStore
from aos.errors import AosError, DataLoss, InvalidArgument, NotFound
from aos.oci.reference import Reference, parse_reference
from aos.package import Package, package_children
from aos.registry.client import DistributionClient
from aos.registry.exchange import Exchange, LayoutLocation, parse_location
from aos.registry.local import LocalRegistry
from package_making import make_package

if TYPE_CHECKING:
    from aos.registry.protocol import Entry
    from fix_registry import Asked, StubRegistry


class Here:
    def __init__(self, root: Path) -> None:
        self.content = ContentStore(root / "content")
        self.registry = LocalRegistry(root / "registry", self.content)
        self.exchange = Exchange(self.content, self.registry, lambda: DistributionClient(self.content, {}))

    def make(self, reference: str = "hello:1.2.0", **definition: Any) -> Package:
        package = make_package(self.content.blobs, **definition)
        self.registry.tag(
            reference, package.manifest_digest, name=package.name, version=package.version, size=package.size
        )
        return package

    def collect(self) -> int:
        blobs = self.content.blobs
        done = collect(
            self.content,
            lambda: [entry.digest for entry in self.registry.list()],
            package_children(blobs),
        )
        return done.blobs


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "here")


@pytest.fixture
def other(tmp_path: Path) -> Here:
    return Here(tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:out", LayoutLocation(Path("out"))),
        ("oci:/a/b:1.0", LayoutLocation(Path("/a/b"), "1.0")),
        ("oci:with:colon/b", LayoutLocation(Path("with:colon/b"))),
        ("oci-archive:a.tar:x", LayoutLocation(Path("a.tar"), "x", archive=True)),
        ("hello", Reference("", "hello", "latest")),
        ("localhost:5000/oci:1", Reference("localhost:5000", "oci", "1")),
    ],
)
def test_locations(text: str, expected: object) -> None:
    assert parse_location(text) == expected


@pytest.mark.parametrize("text", ["oci:", "oci-archive:", "oci::tag", "docker://x/y", "A"])
def test_what_is_no_location(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_location(text)


def references(entries: list[Entry]) -> list[str]:
    return [entry.reference for entry in entries]


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_a_layout_goes_out_and_comes_in(tmp_path: Path, here: Here, other: Here, kind: str) -> None:
    package = here.make()
    where = f"{kind}:{tmp_path / 'out'}"
    assert here.exchange.push("hello:1.2.0", where) == (package, str(tmp_path / "out"))
    entries = other.exchange.pull(where)
    assert references(entries) == ["hello:1.2.0"]
    assert (entries[0].digest, entries[0].version, entries[0].size) == (
        package.manifest_digest,
        "1.2.0",
        package.size,
    )
    assert other.exchange.load("hello:1.2.0") == package


def test_a_tag_of_ones_own(tmp_path: Path, here: Here, other: Here) -> None:
    here.make()
    here.exchange.push("hello:1.2.0", f"oci:{tmp_path / 'out'}:stable")
    assert references(other.exchange.pull(f"oci:{tmp_path / 'out'}")) == ["hello:stable"]
    with pytest.raises(NotFound):
        other.exchange.pull(f"oci:{tmp_path / 'out'}:other")


def test_a_version_that_no_tag_can_hold(tmp_path: Path, here: Here, other: Here) -> None:
    here.make(metadata={"name": "hello", "version": "1.0.0+build.7"})
    here.exchange.push("hello:1.2.0", f"oci:{tmp_path / 'out'}")
    assert references(other.exchange.pull(f"oci:{tmp_path / 'out'}")) == ["hello:1.0.0_build.7"]


def test_inspect_tells_all_names(here: Here) -> None:
    package = here.make()
    here.make("copy:1")
    here.make("else:1", metadata={"name": "else", "version": "1.0.0"})
    facts = here.exchange.inspect(package.manifest_digest)
    assert facts["references"] == ["copy:1", "hello:1.2.0"]
    assert facts["description"] == "Says hello"
    assert facts["config"]["entrypoint"] == ["/bin/hello"]
    assert [layer["created_by"] for layer in facts["layers"]] == ["copy . /", "run: make"]


def test_pull_and_push_over_http(here: Here, other: Here, stub_registry: StubRegistry) -> None:
    package = here.make()
    where = f"{stub_registry.host}/team/hello:2"
    assert here.exchange.push("hello:1.2.0", where) == (package, where)
    assert references(other.exchange.pull(where)) == [where]
    assert other.exchange.load(where) == package
    assert other.exchange.push(where) == (package, where)


def test_nothing_is_named_when_a_pull_fails(here: Here, other: Here, stub_registry: StubRegistry) -> None:
    package = here.make()
    where = f"{stub_registry.host}/team/hello:2"
    here.exchange.push("hello:1.2.0", where)
    stub_registry.blobs[package.layers[0].digest] += b"x"
    with pytest.raises(DataLoss):
        other.exchange.pull(where)
    assert not other.registry.list()
    other.collect()
    assert not list(other.content.blobs.list())
    assert not list((other.content.root / "ingest").iterdir())


def test_a_collection_in_the_middle_of_a_pull_takes_nothing(
    here: Here, other: Here, stub_registry: StubRegistry
) -> None:
    """Every blob of the pull is there already but one, and a collection runs while that one comes."""
    package = here.make()
    where = f"{stub_registry.host}/team/hello:2"
    here.exchange.push("hello:1.2.0", where)
    for digest, data in stub_registry.blobs.items():
        if digest != package.layers[1].digest:
            other.content.blobs.put(data)
    collected: list[int] = []

    def collect_first(asked: Asked) -> None:
        collected.append(other.collect())
        asked.answer(200, stub_registry.blobs[package.layers[1].digest])

    stub_registry.fault(collect_first, path=package.layers[1].digest)
    other.exchange.pull(where)
    assert len(collected) == 1
    assert other.exchange.load(where) == package
    assert all(check.problem is None for check in other.exchange.verify(where))


def test_verify_in_the_store_and_on_disk(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    package = here.make()
    here.exchange.push("hello:1.2.0", f"oci:{tmp_path / 'layout'}")
    here.exchange.push("hello:1.2.0", f"oci-archive:{tmp_path / 'a.tar'}")
    stored = [check.what for check in here.exchange.verify("hello:1.2.0")]
    assert stored == ["manifest", "config", "layer", "layer"]
    assert [check.what for check in here.exchange.verify(package.manifest_digest)] == stored
    monkeypatch.chdir(tmp_path)
    for target in (
        tmp_path / "layout",
        "./layout",
        "layout",
        "oci:layout",
        "a.tar",
        "oci-archive:a.tar:1.2.0",
    ):
        checks = list(here.exchange.verify(str(target)))
        assert [check.what for check in checks] == [*stored, "sidecar", "sidecar", "sidecar"]
        assert not [check for check in checks if check.problem]
    Path("hello:1.2.0").mkdir()
    assert [check.what for check in here.exchange.verify("hello:1.2.0")] == stored


def test_verify_does_not_change_the_store(tmp_path: Path, here: Here, other: Here) -> None:
    here.make()
    here.exchange.push("hello:1.2.0", f"oci:{tmp_path / 'layout'}")
    list(other.exchange.verify(str(tmp_path / "layout")))
    assert not list(other.content.blobs.list())


def test_verify_refuses_what_is_not_there(tmp_path: Path, here: Here) -> None:
    for target in ("nothing:1", str(tmp_path / "none"), "./none"):
        with pytest.raises(NotFound):
            list(here.exchange.verify(target))
    with pytest.raises(InvalidArgument):
        list(here.exchange.verify(str(tmp_path)))


def test_a_foreign_layout_is_named_after_its_directory(tmp_path: Path, here: Here, other: Here) -> None:
    import json

    package = make_package(here.content.blobs)
    raw = json.loads(here.content.blobs.read(package.manifest_digest))
    config = json.loads(here.content.blobs.read(raw["config"]["digest"]))
    del config["config"]["Labels"]
    stored = here.content.blobs.put(json.dumps(config).encode())
    raw["config"] |= {"digest": stored.digest, "size": stored.size}
    digest = here.content.blobs.put(json.dumps(raw).encode()).digest
    here.registry.tag("foreign:1", digest)
    here.exchange.push("foreign:1", f"oci:{tmp_path / 'Plain.d'}")
    assert not (tmp_path / "Plain.d/manifest.json").exists()
    assert references(other.exchange.pull(f"oci:{tmp_path / 'Plain.d'}")) == ["plain:latest"]
    (tmp_path / "Plain.d").rename(tmp_path / "!")
    with pytest.raises(InvalidArgument, match="cannot make a name"):
        other.exchange.pull(f"oci:{tmp_path / '!'}")


def test_the_http_stack_is_not_needed_for_layouts(tmp_path: Path, here: Here) -> None:
    def refuse() -> NoReturn:
        raise AssertionError("no registry is involved")

    here.make()
    offline = Exchange(here.content, here.registry, refuse)
    offline.push("hello:1.2.0", f"oci:{tmp_path / 'out'}")
    offline.pull(f"oci:{tmp_path / 'out'}")
    assert list(offline.verify("hello:1.2.0"))


def test_a_full_store(tmp_path: Path, here: Here, other: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.make()
    here.exchange.push("hello:1.2.0", f"oci:{tmp_path / 'out'}")

    def full(descriptor: int) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AosError) as caught:
        other.exchange.pull(f"oci:{tmp_path / 'out'}")
    assert caught.value.code == "disk-full"
    assert not other.registry.list()


def test_references_are_what_they_say(here: Here) -> None:
    package = here.make("registry.example/team/hello:1")
    assert here.exchange.load(str(parse_reference("registry.example/team/hello:1"))) == package
