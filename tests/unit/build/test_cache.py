"""The cache: whatever is not whole is a miss."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aos.build.cache.local import PIN_OWNER, Cache, CacheEntry
from aos.build.cache.mounts import cache_mounts, remove_cache_mount, take
from aos.build.cache.prune import CacheUse, cache_use, forget
from aos.build.workspace.replace import replace_file
from aos.content.store import ContentStore
from aos.oci.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "ab" * 32


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


@pytest.fixture
def cache(tmp_path: Path, content: ContentStore) -> Cache:
    return Cache(tmp_path / "cache", content)


def _entry(content: ContentStore, data: bytes = b"layer") -> CacheEntry:
    blob = content.blobs.put(data)
    return CacheEntry(Layer(blob.digest, blob.digest, blob.size, "tar"), "run make", 1.5)


def test_an_entry_comes_back_and_its_blob_is_pinned(cache: Cache, content: ContentStore) -> None:
    assert cache.get(KEY) is None
    entry = _entry(content)
    cache.put(KEY, entry)
    assert cache.get(KEY) == entry
    assert entry.layer
    assert entry.layer.digest in str(list(content.pins.list()))
    cache.drop(KEY)
    assert cache.get(KEY) is None
    assert entry.layer.digest not in str(list(content.pins.list()))
    assert PIN_OWNER


def test_a_step_that_changed_nothing_is_remembered(cache: Cache) -> None:
    cache.put(KEY, CacheEntry(None, "run true", 0))
    assert cache.get(KEY) == CacheEntry(None, "run true", 0)


def test_a_vanished_or_truncated_blob_is_a_miss(cache: Cache, content: ContentStore) -> None:
    entry = _entry(content)
    assert entry.layer
    cache.put(KEY, entry)
    path = content.blobs.path(entry.layer.digest)
    path.chmod(0o600)
    path.write_bytes(b"lay")
    assert cache.get(KEY) is None
    cache.put(KEY, _entry(content, b"other"))
    other = cache.get(KEY)
    assert other
    assert other.layer
    content.blobs.delete(other.layer.digest)
    assert cache.get(KEY) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 2}', '{"version": 2, "key": "other"}', "\x00" * 100, "[" * 100_000],
)
def test_a_damaged_entry_is_dropped(cache: Cache, tmp_path: Path, text: str) -> None:
    cache.put(KEY, CacheEntry(None, "x", 0))
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text(text)
    assert cache.get(KEY) is None
    assert not file.exists()


@pytest.mark.parametrize("layer", ['"x"', '{"digest": 1}', '{"size": "1", "media_type": "x"}'])
def test_a_damaged_layer_is_dropped(cache: Cache, tmp_path: Path, layer: str) -> None:
    cache.put(KEY, CacheEntry(None, "x", 0))
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text(file.read_text().replace("null", layer))
    assert cache.get(KEY) is None


def test_forgetting_removes_entries_pins_and_mounts(
    cache: Cache, content: ContentStore, tmp_path: Path
) -> None:
    cache.put(KEY, _entry(content))

    async def fill() -> None:
        async with take(tmp_path / "mounts", "pip", "uv", "shared") as directory:
            (directory / "wheel").write_bytes(bytes(10_000))

    asyncio.run(fill())
    before = forget(tmp_path, content)
    assert before.entries == 1
    assert before.bytes >= 10_000
    assert cache.get(KEY) is None
    assert list(content.pins.list()) == []
    assert cache_use(tmp_path) == CacheUse(0, 0)


@contextmanager
def _meanwhile(work: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Do it again and again in a thread; the list has what it raised."""
    over, raised = threading.Event(), list[BaseException]()

    def again() -> None:
        try:
            while not over.is_set():
                work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield raised
    finally:
        over.set()
        thread.join()


def test_what_builds_write_meanwhile_does_not_disturb_forgetting_nor_it_them(
    content: ContentStore, tmp_path: Path
) -> None:
    def write() -> None:
        for name in ("records", "records/files", "digests"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            replace_file(tmp_path / name / "0123456789ab.json", b"{}")

    with _meanwhile(write) as raised:
        for _ in range(300):
            forget(tmp_path, content)
    assert raised == []
    forget(tmp_path, content)
    assert not list(tmp_path.rglob("*.json"))


def test_a_cache_is_taken_while_others_remove_it(tmp_path: Path) -> None:
    def remove() -> None:
        for use in cache_mounts(tmp_path):
            remove_cache_mount(use)

    async def use() -> None:
        async with take(tmp_path, "run", "c", "shared") as directory:
            (directory / "file").touch()

    with _meanwhile(remove) as raised:
        for _ in range(300):
            asyncio.run(use())
    assert raised == []
