from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.content.store import ContentStore
from aos.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from aos.oci.digest import Digest, digest_of
from aos.oci.reference import parse_reference
from aos.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, TWO = digest_of(b"one"), digest_of(b"two")


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        self.seconds += 1
        return self.seconds

    def monotonic(self) -> float:
        return self.now()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(tmp_path: Path, root: Path) -> LocalRegistry:
    return LocalRegistry(root, ContentStore(tmp_path / "content"), clock=Time())


@pytest.fixture
def another(tmp_path: Path, root: Path) -> Callable[[], LocalRegistry]:
    return lambda: LocalRegistry(root, ContentStore(tmp_path / "content"), clock=Time())


def test_nothing_is_here_at_first(registry: LocalRegistry, root: Path) -> None:
    assert registry.list() == []
    with pytest.raises(NotFound) as caught:
        registry.resolve("hello:1")
    assert caught.value.code == "package-not-found"
    assert not root.exists()


def test_a_tag_resolves_here_and_in_another_process_view(
    registry: LocalRegistry, another: Callable[[], LocalRegistry]
) -> None:
    other = another()
    assert other.list() == []
    entry = registry.tag("hello:1", ONE, name="hello", version="1.0.0", size=7)
    assert registry.resolve("hello:1") == other.resolve(parse_reference("hello:1")) == ONE
    assert other.list() == [entry]
    assert (entry.name, entry.version, entry.size, entry.created_at) == ("hello", "1.0.0", 7, 1001.0)


def test_no_tag_means_latest(registry: LocalRegistry) -> None:
    registry.tag("hello", ONE)
    assert registry.resolve("hello:latest") == registry.resolve("hello") == ONE
    assert [entry.reference for entry in registry.list()] == ["hello:latest"]


def test_a_tag_moves(registry: LocalRegistry) -> None:
    registry.tag("hello:1", ONE)
    registry.tag("hello:1", TWO)
    assert registry.resolve("hello:1") == TWO
    assert len(registry.list()) == 1


def test_the_same_again_changes_nothing(registry: LocalRegistry, root: Path) -> None:
    first = registry.tag("hello:1", ONE)
    before = (root / "index.json").stat()
    assert registry.tag("hello:1", ONE) == first
    assert (root / "index.json").stat() == before


def test_the_list_is_sorted(registry: LocalRegistry) -> None:
    for name in ("b:1", "localhost:5000/x:2", "a:2", "a:1"):
        registry.tag(name, ONE)
    assert [entry.reference for entry in registry.list()] == ["a:1", "a:2", "b:1", "localhost:5000/x:2"]


def test_digests_and_their_beginnings_resolve(registry: LocalRegistry) -> None:
    registry.tag("hello:1", ONE)
    registry.tag("hello:2", ONE)
    registry.tag("other:1", TWO)
    for text in (ONE, ONE[7:19], ONE[7:11], ONE[:15], f"hello@{ONE}", f"hello:1@{ONE}"):
        assert registry.resolve(text) == ONE, text


def test_a_digest_belongs_to_its_repository(registry: LocalRegistry) -> None:
    registry.tag("hello:1", ONE)
    for text in (f"other@{ONE}", f"hello@{TWO}", f"localhost:5000/hello@{ONE}"):
        with pytest.raises(NotFound):
            registry.resolve(text)


def test_what_was_pulled_by_digest_keeps_that_name(registry: LocalRegistry) -> None:
    """A pull of an index by its digest stands for the manifest that was chosen from it."""
    registry.tag(f"r.example/hello@{TWO}", ONE)
    assert registry.resolve(f"r.example/hello@{TWO}") == ONE


def test_untagged_content_resolves_by_its_whole_digest(tmp_path: Path, registry: LocalRegistry) -> None:
    digest = ContentStore(tmp_path / "content").blobs.put(b"a manifest").digest
    assert registry.resolve(digest) == digest
    with pytest.raises(NotFound):
        registry.resolve(digest[7:19])


def test_a_name_goes_before_a_beginning_of_a_digest(registry: LocalRegistry) -> None:
    word = ONE[7:13]
    registry.tag("hello:1", ONE)
    registry.tag(word, TWO)
    assert registry.resolve(word) == TWO


def test_an_ambiguous_beginning_is_refused(registry: LocalRegistry) -> None:
    registry.tag("a:1", Digest("sha256:" + "ab12" + "0" * 60))
    registry.tag("b:1", Digest("sha256:" + "ab12" + "1" * 60))
    with pytest.raises(InvalidArgument) as caught:
        registry.resolve("ab12")
    assert caught.value.code == "digest-ambiguous"
    assert "a:1" in (caught.value.hint or "")
    assert registry.resolve("ab121") == Digest("sha256:" + "ab12" + "1" * 60)


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("hello", "hello:1.0.0"),
        ("helo:1.0.0", "hello:1.0.0"),
        ("hello:1.0.1", "hello:1.0.0"),
        ("x.example/hello:2", "hello:1.0.0"),
    ],
)
def test_near_names_are_in_the_hint(registry: LocalRegistry, wanted: str, near: str) -> None:
    registry.tag("hello:1.0.0", ONE)
    registry.tag("unrelated-thing:3", TWO)
    with pytest.raises(NotFound) as caught:
        registry.resolve(wanted)
    assert f"did you mean {near}?" in (caught.value.hint or "")


def test_a_name_with_a_registry_gets_the_hint_to_pull(registry: LocalRegistry) -> None:
    with pytest.raises(NotFound) as caught:
        registry.resolve("registry.example/team/agent:1")
    assert "aos pull registry.example/team/agent:1" in (caught.value.hint or "")


def test_what_is_no_reference_is_refused(registry: LocalRegistry) -> None:
    with pytest.raises(InvalidArgument):
        registry.resolve("Not A Reference")


def test_remove_a_tag(registry: LocalRegistry) -> None:
    registry.tag("hello:1", ONE)
    registry.tag("hello:2", ONE)
    assert [entry.reference for entry in registry.remove("hello:1")] == ["hello:1"]
    assert [entry.reference for entry in registry.list()] == ["hello:2"]


@pytest.mark.parametrize("text", [ONE, ONE[7:15]])
def test_remove_every_name_of_a_digest(registry: LocalRegistry, text: str) -> None:
    for name in ("hello:1", "hello:2", "copy:1"):
        registry.tag(name, ONE)
    registry.tag("other:1", TWO)
    assert len(registry.remove(text)) == 3
    assert [entry.reference for entry in registry.list()] == ["other:1"]


def test_removing_what_is_not_there(registry: LocalRegistry) -> None:
    registry.tag("hello:1", ONE)
    with pytest.raises(NotFound):
        registry.remove("hello:2")
    assert len(registry.list()) == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"version":1}',
        b'{"version":1,"entries":[]}',
        b'{"version":1,"entries":{"hello:1":{}}}',
        b'{"version":1,"entries":{"No Reference":{"digest":"%s","name":"","version":"","size":1,"created_at":1}}}'
        % ONE.encode(),
        b'{"version":1,"entries":{"hello:1":{"digest":"md5:x","name":"","version":"","size":1,"created_at":1}}}',
        b'{"version":1,"entries":{"hello:1":{"digest":"%s","name":1,"version":"","size":1,"created_at":1}}}'
        % ONE.encode(),
        b'{"version":1,"entries":{"hello:1":{"digest":"%s","name":"","version":"","size":1,"created_at":"x"}}}'
        % ONE.encode(),
    ],
)
def test_a_damaged_index_is_refused_and_never_overwritten(
    registry: LocalRegistry, root: Path, damage: bytes
) -> None:
    registry.tag("hello:1", ONE)
    (root / "index.json").write_bytes(damage)
    for attempt in (
        registry.list,
        lambda: registry.resolve("hello:1"),
        lambda: registry.tag("hello:1", TWO),
        lambda: registry.remove("hello:1"),
    ):
        with pytest.raises(DataLoss) as caught:
            attempt()
        assert caught.value.code == "registry-index-damaged"
    assert (root / "index.json").read_bytes() == damage


def test_the_way_back_from_damage_works(registry: LocalRegistry, root: Path) -> None:
    registry.tag("hello:1", ONE)
    registry.tag("hello:2", TWO)
    (root / "index.json").write_bytes(b"{")
    with pytest.raises(DataLoss) as caught:
        registry.list()
    command = (caught.value.hint or "").partition("mv ")[2].partition(";")[0].split()
    Path(command[0]).rename(command[1])
    assert registry.resolve("hello:1") == ONE
    registry.tag("hello:2", TWO)
    assert len(registry.list()) == 2


def test_an_index_of_a_newer_aos_is_left_alone(registry: LocalRegistry, root: Path) -> None:
    root.mkdir()
    (root / "index.json").write_text(json.dumps({"version": 2, "entries": {}}))
    with pytest.raises(FailedPrecondition) as caught:
        registry.tag("hello:1", ONE)
    assert caught.value.code == "registry-index-newer"


def test_what_a_killed_writer_left_is_harmless(registry: LocalRegistry, root: Path) -> None:
    registry.tag("hello:1", ONE)
    (root / "index.json.new").write_bytes(b"half a")
    os.link(root / "index.json", root / "index.json.keep")
    registry.tag("hello:2", TWO)
    assert len(registry.list()) == 2
    assert sorted(file.name for file in root.iterdir()) == ["index.json", "index.json.previous", "index.lock"]


def test_a_disk_that_refuses_changes_nothing(
    registry: LocalRegistry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.tag("hello:1", ONE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    from aos.errors import ResourceExhausted

    with pytest.raises(ResourceExhausted) as caught:
        registry.tag("hello:2", TWO)
    assert caught.value.code == "disk-full"
    assert [entry.reference for entry in registry.list()] == ["hello:1"]


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("")
    registry = LocalRegistry(tmp_path / "registry", ContentStore(tmp_path / "content"))
    with pytest.raises((FailedPrecondition, PermissionDenied)) as caught:
        registry.tag("hello:1", ONE)
    assert str(tmp_path) in caught.value.message


WRITER = """
import sys
from pathlib import Path
from aos.content.store import ContentStore
from aos.registry.local import LocalRegistry

root, content, who, digest = sys.argv[1:]
registry = LocalRegistry(Path(root), ContentStore(Path(content)))
for number in range(10):
    registry.tag(f"agent-{who}:{number}", digest)
registry.remove(f"agent-{who}:0")
"""


def test_writers_in_several_processes_lose_nothing(
    tmp_path: Path, registry: LocalRegistry, root: Path
) -> None:
    command = [sys.executable, "-c", WRITER, str(root), str(tmp_path / "content")]
    writers = [subprocess.Popen([*command, str(who), ONE]) for who in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(registry.list()) == 27
