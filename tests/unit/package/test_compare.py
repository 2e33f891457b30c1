"""What differs between two packages, where their bytes are, and how they came to be."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from aos.content.blobs import BlobStore
from aos.oci.descriptor import MEDIA_LAYER_GZIP
from aos.oci.digest import digest_of
from aos.oci.image import History
from aos.oci.layer import Layer
from aos.package import BuiltLayer, Package, assemble
from aos.package.compare import PackageDiff, compare
from aos.package.describe import describe_diff
from aos.package.history import history, unpacked_size
from aos.package.software import Software, installed
from aos.package.usage import inside, shared
from package_making import DEFINITION, image

if TYPE_CHECKING:
    from pathlib import Path

Entry = tuple[str, bytes, dict[str, Any]]

STATUS = """Package: apt
Status: install ok installed
Installed-Size: 10
Version: 2.6.1
Description: a manager
 Version: not this one

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok not-installed
Version: 1
"""


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def file(name: str, data: bytes = b"", **fields: Any) -> Entry:
    return name, data, fields


def layer(blobs: BlobStore, step: str, *entries: Entry) -> BuiltLayer:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, fields in entries:
            made = tarfile.TarInfo(name)
            made.size = len(data)
            for key, value in fields.items():
                setattr(made, key, value)
            archive.addfile(made, io.BytesIO(data))
    stored = blobs.put(gzip.compress(tar.getvalue(), mtime=0))
    made_layer = Layer(stored.digest, digest_of(tar.getvalue()), stored.size, MEDIA_LAYER_GZIP)
    return BuiltLayer(made_layer, step, "key of " + step, "stage")


def package(blobs: BlobStore, *layers: BuiltLayer, **fields: Any) -> Package:
    definition = fields.pop("definition", {})
    return assemble(blobs, definition_json=DEFINITION | definition, image=image(**fields), layers=layers)


def changes(diff: PackageDiff) -> dict[str, tuple[object, ...]]:
    return {one.path: (one.change, one.aspects, *diff.responsible(one)) for one in diff.files}


def test_every_aspect_of_a_file_is_told_with_the_steps_behind_it(blobs: BlobStore) -> None:
    base = layer(
        blobs,
        "base",
        file("content", b"a"),
        file("mode", b"a", mode=0o644),
        file("owner", b"a", uid=0),
        file("link", type=tarfile.SYMTYPE, linkname="a"),
        file("xattr", b"a"),
        file("type", b"a"),
        file("time", b"a", mtime=1),
        file("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        file("gone", b"a"),
        file("same", b"a"),
    )
    step = layer(
        blobs,
        "step",
        file("content", b"b"),
        file("mode", b"a", mode=0o755),
        file("owner", b"a", uid=7),
        file("link", type=tarfile.SYMTYPE, linkname="b"),
        file("xattr", b"a", pax_headers={"SCHILY.xattr.user.a": "b"}),
        file("type", type=tarfile.FIFOTYPE),
        file("time", b"a", mtime=2),
        file("device", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        file(".wh.gone"),
        file("same", b"a"),
        file("new", b"12"),
    )
    before, after = package(blobs, base), package(blobs, base, step)
    expected = {
        "content": ("changed", ("content",), "base", "step"),
        "device": ("changed", ("device",), "base", "step"),
        "gone": ("removed", (), "base", "step"),
        "link": ("changed", ("link",), "base", "step"),
        "mode": ("changed", ("mode",), "base", "step"),
        "new": ("added", (), "", "step"),
        "owner": ("changed", ("owner",), "base", "step"),
        "type": ("changed", ("type",), "base", "step"),
        "xattr": ("changed", ("xattrs",), "base", "step"),
    }
    diff = compare(blobs, before, after)
    assert changes(diff) == expected
    assert diff.shared_layers == 1
    assert changes(compare(blobs, before, after, times=True)) == expected | {
        "time": ("changed", ("time",), "base", "step")
    }
    back = changes(compare(blobs, after, before))
    assert back["gone"] == ("added", (), "", "base")
    assert back["new"] == ("removed", (), "step", "")


def test_the_same_package_is_the_same(blobs: BlobStore) -> None:
    one = package(blobs, layer(blobs, "a", file("x", b"1")))
    diff = compare(blobs, one, one)
    assert (diff.files, diff.software, diff.config) == ((), (), ())
    assert describe_diff(diff, {"files": diff.files})["same"] is True


def test_everything_is_new_beside_nothing(blobs: BlobStore) -> None:
    diff = compare(blobs, None, package(blobs, layer(blobs, "a", file("d/x", b"1"), file("d", type=b"5"))))
    assert [(one.path, one.change) for one in diff.files] == [("d", "added"), ("d/x", "added")]
    assert diff.unpacked[0] == 0 < diff.unpacked[1]


def test_software_and_its_versions(blobs: BlobStore) -> None:
    def dist(name: str, version: str) -> list[Entry]:
        folder = f"usr/lib/python3/dist-packages/{name}-{version}.dist-info"
        return [
            file(f"{folder}/METADATA", f"Name: {name}\nVersion: {version}\n\nVersion: 9\n".encode()),
            file(f"{folder}/RECORD", b'a.py,sha256=x,100\nb.py,,\n"q,uoted",sha256=x,11\n'),
        ]

    one = package(
        blobs,
        layer(
            blobs,
            "a",
            file("var/lib/dpkg/status", STATUS.encode()),
            *dist("httpx", "1.0"),
            *dist("Old_One", "3"),
        ),
    )
    two = package(
        blobs,
        layer(
            blobs,
            "b",
            file("var/lib/dpkg/status", STATUS.replace("2.6.1", "2.6.2").encode()),
            *dist("httpx", "1.1"),
            *dist("fresh", "0"),
        ),
    )
    found = {
        (one.known.manager, one.known.name): (
            one.before and one.before.version,
            one.after and one.after.version,
        )
        for one in compare(blobs, one, two).software
    }
    assert found == {
        ("debian", "apt"): ("2.6.1", "2.6.2"),
        ("python", "httpx"): ("1.0", "1.1"),
        ("python", "old-one"): ("3", None),
        ("python", "fresh"): (None, "0"),
    }
    usage = inside(blobs, one, count=10)
    assert usage.software == (
        Software("debian", "apt", "2.6.1", 10240),
        Software("python", "httpx", "1.0", 111),
        Software("python", "old-one", "3", 111),
    )


@pytest.mark.parametrize(
    "noise", [b"", b"\xff\xfe", b"Name", b":\n:\n", b"\0" * 1000, b'"', b"a,b,1e9\n" * 9]
)
def test_records_that_are_noise_say_nothing(blobs: BlobStore, noise: bytes) -> None:
    made = package(
        blobs,
        layer(
            blobs,
            "a",
            file("x.dist-info/METADATA", noise),
            file("x.dist-info/RECORD", noise),
            file("var/lib/dpkg/status", noise),
        ),
    )
    assert inside(blobs, made, count=5).software == ()
    assert installed([]) == []


def test_config_and_definition(blobs: BlobStore) -> None:
    made = layer(blobs, "a", file("x", b"1"))
    one = package(blobs, made, user="1", labels={"a": "b"}, definition={"resources": {"cpu": 1}})
    two = package(
        blobs,
        made,
        env=("PATH=/usr/bin", "B=c"),
        user="2",
        entrypoint=("/bin/other",),
        definition={
            "stages": [
                {"name": "s", "base": "scratch", "steps": [{"kind": "run", "args": ["a", "b"]}]},
                {"name": "", "base": "s"},
            ]
        },
    )
    found = {one.field: (one.before, one.after) for one in compare(blobs, one, two).config}
    assert found == {
        "entrypoint": (["/bin/hello"], ["/bin/other"]),
        "user": ("1", "2"),
        "env PATH": ("/bin", "/usr/bin"),
        "env A": ("b", None),
        "env B": (None, "c"),
        "label a": ("b", None),
        "definition resources.cpu": (1, None),
        "definition stages[s].base": (None, "scratch"),
        "definition stages[s].name": (None, "s"),
        "definition stages[s].steps[0].kind": (None, "run"),
        "definition stages[s].steps[0].args": (None, ["a", "b"]),
        "definition stages[].base": (None, "s"),
        "definition stages[].name": (None, ""),
    }


def test_what_is_shared_and_what_is_ones_own(blobs: BlobStore) -> None:
    base, mine, yours = (layer(blobs, name, file(name, name.encode() * 50)) for name in ("b", "m", "y"))
    one, two = package(blobs, base, mine), package(blobs, base, yours)
    usage = shared({one.manifest_digest: (one, ["one:1", "also:1"]), two.manifest_digest: (two, ["two:1"])})
    first, second = usage.packages
    assert first.references == ("one:1", "also:1")
    assert (first.unique, first.shared) == (mine.layer.size, base.layer.size)
    assert second.unique == yours.layer.size
    assert usage.size == base.layer.size + mine.layer.size + yours.layer.size
    assert {use.layer.digest: len(use.packages) for use in usage.layers}[base.layer.digest] == 2


def test_where_the_bytes_of_a_package_are(blobs: BlobStore) -> None:
    made = package(
        blobs,
        layer(
            blobs, "a", file("deep/er/est/big", b"x" * 900), file("deep/small", b"y"), file("gone", b"z" * 50)
        ),
        layer(blobs, "b", file(".wh.gone")),
    )
    usage = inside(blobs, made, [made], count=2)
    assert [(one.path, one.size, one.files) for one in usage.directories] == [("deep/er/est", 900, 1)]
    assert [one.path for one in usage.largest] == ["deep/er/est/big", "deep/small"]
    assert (usage.size, usage.files) == (901, 2)
    assert [(file.path, file.size) for file in usage.hidden] == [("gone", 50)]
    assert usage.hidden_size == 50
    assert [len(use.packages) for use in usage.layers] == [1, 1]


def test_history_is_newest_first_and_has_what_made_no_layer(blobs: BlobStore) -> None:
    made = package(blobs, layer(blobs, "one", file("a", b"1")), layer(blobs, "two", file("b", b"2")))
    entries = history(made)
    assert [entry.created_by for entry in entries] == ["aos: configuration", "two", "one"]
    assert [entry.layer for entry in entries] == [None, *reversed(made.layers)]
    assert entries[1].facts.cache_key == "key of two"
    assert unpacked_size(blobs, made.layers[0]) == 10240


def test_history_that_does_not_fit_is_not_believed(blobs: BlobStore) -> None:
    from dataclasses import replace

    made = package(blobs, layer(blobs, "one", file("a", b"1")))
    lying = replace(
        made, image=replace(made.image, history=(History(created_by="x"), History(created_by="y")))
    )
    assert [entry.created_by for entry in history(lying)] == ["one"]
