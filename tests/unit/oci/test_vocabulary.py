"""References, manifests and image configs: the grammar exactly, and foreign fields kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aos.errors import InvalidArgument
from aos.oci.descriptor import MEDIA_CONFIG, Descriptor
from aos.oci.digest import digest_of, parse_digest
from aos.oci.image import History, ImageSpec
from aos.oci.manifest import Manifest
from aos.oci.reference import Reference, parse_reference

DIGEST = digest_of(b"x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", Reference("", "hello", "latest")),
        ("hello:1.0", Reference("", "hello", "1.0")),
        ("team/hello", Reference("", "team/hello", "latest")),
        ("localhost/a:b", Reference("localhost", "a", "b")),
        ("127.0.0.1:5000/a/b:c", Reference("127.0.0.1:5000", "a/b", "c")),
        ("[::1]:5000/a", Reference("[::1]:5000", "a", "latest")),
        ("example.org/a__b/c--d.e", Reference("example.org", "a__b/c--d.e", "latest")),
        (f"a@{DIGEST}", Reference("", "a", "", DIGEST)),
        (f"a:t@{DIGEST}", Reference("", "a", "t", DIGEST)),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "A",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a:" + "t" * 129,
            "a@sha256:12",
            "a@md5:" + "0" * 64,
        ),
        *("a_-b", "a..b", "-a", "ex_ample.org:1/a", "localhost:x/a", "x" * 256, "a:b:c", "a\n", "ä"),
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_reference(text)
    assert refused.value.code == "reference-invalid"
    assert refused.value.hint


_COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)


@given(
    st.lists(_COMPONENT, min_size=1, max_size=4).map("/".join),
    st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True),
    st.sampled_from(["", "localhost", "example.org", "h:5000", "[::1]:80"]),
)
def test_what_the_grammar_makes_is_read_back(repository: str, tag: str, registry: str) -> None:
    first, _, rest = repository.partition("/")
    assume(registry or not rest or not ("." in first or first == "localhost"))  # it would be a registry
    reference = Reference(registry, repository, tag)
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert parse_reference(str(parse_reference(text))) == parse_reference(text)
    except InvalidArgument as refused:
        assert refused.code == "reference-invalid"


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "G" * 64, "sha256:" + "0" * 63, "SHA256:" + "0" * 64]
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_digest(text)


def test_a_manifest_round_trips_canonically() -> None:
    config = Descriptor(MEDIA_CONFIG, DIGEST, 1)
    manifest = Manifest(config, (Descriptor("m", DIGEST, 2, {"b": "1", "a": "2"}),), {"k": "v"}, config, "t")
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert (
        manifest.to_bytes()
        == Manifest.from_bytes(json.dumps(json.loads(manifest.to_bytes()), indent=2).encode()).to_bytes()
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": []}',
        b'{"config": 1, "layers": []}',
        b'{"manifests": [], "layers": []}',
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        Manifest.from_bytes(data)


def test_a_foreign_config_stays_itself() -> None:
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "variant": "v2",
        "config": {"Env": ["A=1"], "Cmd": ["x"], "Volumes": {"/v": {}}, "Labels": {"l": "1"}, "User": "u"},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "history": [{"created_by": "y", "empty_layer": True}],
    }
    image = ImageSpec.from_bytes(json.dumps(raw).encode())
    assert image.history == (History(created_by="y", empty_layer=True),)
    assert json.loads(image.to_bytes()) == raw
    assert ImageSpec.from_bytes(image.to_bytes()) == image


@pytest.mark.parametrize("field", ["architecture", "os", "rootfs", "config", "history"])
def test_a_config_with_a_wrong_field_names_it(field: str) -> None:
    raw = {"architecture": "a", "os": "l", "rootfs": {"diff_ids": []}, "config": {}, "history": [], field: 7}
    with pytest.raises(InvalidArgument) as refused:
        ImageSpec.from_bytes(json.dumps(raw).encode())
    assert field in refused.value.message
