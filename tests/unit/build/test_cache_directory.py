"""A shared cache in a directory: what it keeps, and that nothing in it is believed before it is verified."""

from __future__ import annotations

import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from aos.build.cache.directory import CacheDirectory
from aos.errors import (
    AosError,
    DataLoss,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from aos.oci.digest import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "ab" * 32
DATA = b"a layer"
DIGEST = digest_of(DATA)


@pytest.fixture
def cache(tmp_path: Path) -> CacheDirectory:
    return CacheDirectory(tmp_path / "cache", {}, create=True)


def test_what_is_kept_is_found_by_another_machine(cache: CacheDirectory) -> None:
    assert cache.entry(KEY) is None
    assert not cache.has_blob(DIGEST, len(DATA))
    with pytest.raises(NotFound), cache.blob(DIGEST):
        pass
    cache.add_blob(DIGEST, io.BytesIO(DATA))
    cache.add_entry(KEY, b"entry")
    other = CacheDirectory(cache._directory, {}, create=False)
    assert other.entry(KEY) == b"entry"
    assert other.has_blob(DIGEST, len(DATA))
    assert not other.has_blob(DIGEST, len(DATA) + 1), "one that was cut short is copied again"
    with other.blob(DIGEST) as stream:
        assert stream.read() == DATA


def test_nothing_but_whole_files_is_ever_seen(cache: CacheDirectory, tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(AosError):
        cache.add_blob(DIGEST, Broken())
    assert not cache.has_blob(DIGEST, 0)
    assert [path.name for path in (tmp_path / "cache/blobs/sha256").iterdir()] == []


def test_a_directory_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        CacheDirectory(tmp_path / "nowhere", {}, create=False)
    assert missing.value.code == "cache-not-found"
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").touch()
    with pytest.raises(NotFound):
        CacheDirectory(tmp_path / "home", {}, create=True)
    assert not (tmp_path / "home/aos-cache.json").exists(), "nothing is written among somebody's files"
    with pytest.raises(InvalidArgument):
        CacheDirectory(tmp_path / "home/file", {}, create=True)


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99}', "[" * 100_000])
def test_a_cache_of_another_version_is_refused(cache: CacheDirectory, tmp_path: Path, text: str) -> None:
    (tmp_path / "cache/aos-cache.json").write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        CacheDirectory(tmp_path / "cache", {}, create=False)
    assert caught.value.code == "cache-invalid"


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_what_is_no_file_is_never_opened_as_one(cache: CacheDirectory, tmp_path: Path, kind: str) -> None:
    places = [
        tmp_path / "cache/entries/ab" / f"{KEY}.json",
        tmp_path / "cache/blobs/sha256" / DIGEST.removeprefix("sha256:"),
    ]
    for place in places:
        place.parent.mkdir(parents=True)
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "link":
            place.symlink_to("/etc/passwd")
        else:
            place.mkdir()
    with pytest.raises((DataLoss, InvalidArgument)):
        cache.entry(KEY)
    with pytest.raises((DataLoss, InvalidArgument)), cache.blob(DIGEST):
        pass
    assert not cache.has_blob(DIGEST, places[1].lstat().st_size)


@pytest.mark.root
def test_a_directory_of_somebody_else_is_refused(cache: CacheDirectory, tmp_path: Path) -> None:
    os.chown(tmp_path / "cache", 12345, 12345)
    with pytest.raises(PermissionDenied) as caught:
        CacheDirectory(tmp_path / "cache", {}, create=False)
    assert caught.value.code == "cache-not-ours"
    assert "12345" in caught.value.message
    CacheDirectory(tmp_path / "cache", {"SUDO_UID": "12345"}, create=False)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_and_a_read_only_directory_are_told(small: Path) -> None:
    cache = CacheDirectory(small / "cache", {}, create=True)
    with pytest.raises(ResourceExhausted) as full:
        cache.add_blob(DIGEST, io.BytesIO(bytes(1 << 20)))
    assert full.value.code == "disk-full"
    cache.add_entry(KEY, b"entry")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(PermissionDenied) as read_only:
        cache.add_entry("cd" * 32, b"entry")
    assert read_only.value.code == "cache-not-writable"
    assert CacheDirectory(small / "cache", {}, create=False).entry(KEY) == b"entry", "reading is enough"
