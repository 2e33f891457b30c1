"""Records of builds: bounded, whole or not there, and sharing the lists of files that copies took."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.build.context.select import Entry, Source
from aos.build.explain import records as records_module
from aos.build.explain.records import BuildRecord, Records, VertexRecord
from aos.build.plan.keys import Component
from aos.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

VERTEX = VertexRecord(
    label="[1/1] copy a /",
    stage="",
    position=0,
    created_by="copy a /",
    kind="copy",
    status="executed",
    key="k",
    components=(Component("files", "sha256:" + "ab" * 32), Component("environment", "e", (("A", "1"),))),
    result="r",
    seconds=0.5,
    below=None,
    reads=(None, 0),
)
RECORD = BuildRecord("0" * 12, 1.0, "it", "built", 0.7, "sha256:x", (VERTEX,))
SOURCES = {
    ("", 0): [
        Source(
            "a",
            [
                Entry("a", "directory", 0o755),
                Entry("a/b", "file", 0o755, "cd" * 32),
                Entry("a/line\nend\udcff", "file", 0o644, "ef" * 32),
                Entry("a/l", "link", 0o777, "b"),
            ],
        )
    ]
}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records")


def _numbered(number: int) -> BuildRecord:
    return replace(RECORD, id=f"{number:012x}", at=float(number))


def test_a_record_comes_back(records: Records) -> None:
    assert records.all() == []
    records.add(RECORD, SOURCES)
    assert records.all() == [RECORD]


def test_files_are_kept_by_name_and_a_short_digest(records: Records, tmp_path: Path) -> None:
    records.add(RECORD, SOURCES)
    found = records.files(VERTEX.components[0].digest)
    assert found is not None
    assert found["a/b"] == "cd" * 8 + "x"
    assert found["a/line\\nend\\xff"] == "ef" * 8
    assert list(found) == ["a", "a/b", "a/line\\nend\\xff", "a/l"]
    (file,) = (tmp_path / "records/files").iterdir()
    written = file.stat().st_mtime_ns
    records.add(replace(RECORD, id="1" * 12), {})
    assert file.stat().st_mtime_ns == written, "the next build with the same files does not write it again"
    assert records.files("sha256:" + "00" * 32) is None
    file.write_bytes(b"damage")
    assert records.files(VERTEX.components[0].digest) is None


def test_the_oldest_are_removed_with_what_only_they_name(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "_MOST", 5)
    monkeypatch.setattr(records_module, "_KEPT", 3)
    for number in range(6):
        record = _numbered(number)
        if number:
            record = replace(record, vertices=())
        records.add(record, SOURCES)
        os.utime(tmp_path / f"records/{record.id}.json", ns=(number, number))
    records.add(replace(_numbered(9), vertices=()), {})
    kept = [record.id for record in records.all()]
    assert kept[-1] == f"{9:012x}"
    assert len(kept) <= 5
    assert f"{0:012x}" not in kept
    assert list((tmp_path / "records/files").iterdir()) == []


def test_builds_are_found_by_id_its_beginning_and_last(records: Records) -> None:
    for number in (0xABCD00000001, 0xABCE00000002):
        records.add(_numbered(number), SOURCES)
    last, earlier = records.find("LAST")
    assert (last.id, [one.id for one in earlier]) == ("abce00000002", ["abcd00000001"])
    assert records.find("abcd")[0].id == "abcd00000001"
    for unknown in ("ab", "ffff", "../../etc/passwd", ""):
        with pytest.raises(NotFound) as caught:
            records.find(unknown)
        assert caught.value.code == "build-not-found"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 99}', '{"format": 1, "id": "0"}', "[" * 99_999]
)
def test_a_damaged_record_is_not_there(records: Records, tmp_path: Path, text: str) -> None:
    records.add(RECORD, SOURCES)
    (tmp_path / f"records/{RECORD.id}.json").write_text(text)
    assert records.all() == []


def test_a_record_whose_fields_are_wrong_is_not_there(records: Records, tmp_path: Path) -> None:
    records.add(RECORD, SOURCES)
    file = tmp_path / f"records/{RECORD.id}.json"
    raw = json.loads(file.read_text())
    for change in (
        {"vertices": 1},
        {"vertices": [1]},
        {"extra": 1},
        {"at": "x"},
        {"vertices": [{"label": 1}]},
    ):
        file.write_text(json.dumps(raw | change))
        assert records.all() == []
