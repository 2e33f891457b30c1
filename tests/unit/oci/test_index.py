from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.errors import InvalidArgument, NotFound
from aos.oci.descriptor import MEDIA_MANIFEST, Descriptor
from aos.oci.digest import digest_of
from aos.oci.index import Index, IndexEntry, Platform, host_platform, select


def entry(name: str, platform: Platform | None = None) -> IndexEntry:
    return IndexEntry(Descriptor(MEDIA_MANIFEST, digest_of(name.encode()), len(name)), platform)


AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")

platforms = st.none() | st.builds(
    Platform, st.just("linux"), st.sampled_from(["amd64", "arm"]), st.sampled_from(["", "v7"])
)
indexes = st.builds(
    Index,
    st.lists(st.builds(entry, st.text(max_size=3), platforms), max_size=4).map(tuple),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)


@given(indexes)
def test_what_is_written_is_read(index: Index) -> None:
    assert Index.from_bytes(index.to_bytes()) == index
    assert Index.from_bytes(index.to_bytes()).to_bytes() == index.to_bytes()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[" * 100_000,
        b"null",
        b"{}",
        b'{"manifests": {}}',
        b'{"manifests": [1]}',
        b'{"manifests": [], "config": {}}',
        b'{"manifests": [], "annotations": [1]}',
    ],
)
def test_what_is_no_index(raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        Index.from_bytes(raw)


@pytest.mark.parametrize("platform", [7, {}, {"os": "linux"}, {"os": 1, "architecture": "amd64"}])
def test_a_platform_that_is_none(platform: Any) -> None:
    item = {**entry("a").descriptor.to_json(), "platform": platform}
    with pytest.raises(InvalidArgument) as caught:
        Index.from_bytes(json.dumps({"manifests": [item]}).encode())
    assert caught.value.code == "index-invalid"


@given(st.binary(max_size=60))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    try:
        Index.from_bytes(data)
    except InvalidArgument as error:
        assert error.code.endswith("-invalid")


def test_the_first_manifest_of_the_platform_is_chosen() -> None:
    index = Index((entry("arm", ARM64), entry("amd", AMD64), entry("again", AMD64)))
    assert select(index, AMD64) == index.manifests[1].descriptor
    assert select(index, Platform("linux", "arm64")) == index.manifests[0].descriptor
    assert select(index, ARM64) == index.manifests[0].descriptor


def test_a_variant_must_fit() -> None:
    index = Index((entry("v6", Platform("linux", "arm", "v6")),))
    with pytest.raises(NotFound) as caught:
        select(index, Platform("linux", "arm", "v7"))
    assert caught.value.code == "platform-not-found"
    assert caught.value.hint == "it has: linux/arm/v6"


def test_a_single_manifest_without_a_platform_is_the_one() -> None:
    assert select(Index((entry("a"),)), AMD64) == entry("a").descriptor
    with pytest.raises(NotFound):
        select(Index((entry("a"), entry("b"))), AMD64)
    with pytest.raises(NotFound):
        select(Index(()), AMD64)


def test_this_host_has_a_platform_in_gos_words() -> None:
    host = host_platform()
    assert host.os == "linux"
    assert host.architecture not in ("x86_64", "aarch64")
    assert str(host) == f"linux/{host.architecture}"
