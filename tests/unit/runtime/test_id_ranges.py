"""No two sandboxes of a host share a range of ids, whoever is killed when."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from aos.errors import InvalidArgument, ResourceExhausted
from aos.runtime.id_ranges import IdRanges, parse_range

if TYPE_CHECKING:
    from pathlib import Path


def _sandbox(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "sandboxes" / name
    path.mkdir(parents=True)
    return path


def test_ranges_are_disjoint_also_between_threads(tmp_path: Path) -> None:
    ranges = IdRanges((1 << 20, 65536 * 40), tmp_path / "claims")
    owners = [_sandbox(tmp_path, f"{number}") for number in range(32)]
    firsts: list[int] = []

    def claim(owner: Path) -> None:
        firsts.append(IdRanges(ranges.pool, ranges.claims).claim(owner).uids[0][1])

    threads = [threading.Thread(target=claim, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(firsts)) == 32
    assert all((first - (1 << 20)) % 65536 == 0 for first in firsts)


def test_what_a_sandbox_leaves_behind_is_claimed_again(tmp_path: Path) -> None:
    ranges = IdRanges((1 << 20, 65536), tmp_path / "claims")
    killed = _sandbox(tmp_path, "killed")
    first = ranges.claim(killed)
    with pytest.raises(ResourceExhausted) as refused:
        ranges.claim(_sandbox(tmp_path, "late"))
    assert refused.value.code == "ids-exhausted"
    killed.rmdir()  # and nothing else: its owner was killed
    assert ranges.claim(_sandbox(tmp_path, "next")) == first


def test_a_range_is_given_back_by_its_owner_alone(tmp_path: Path) -> None:
    ranges = IdRanges((1 << 20, 65536), tmp_path / "claims")
    one, other = _sandbox(tmp_path, "one"), _sandbox(tmp_path, "other")
    first = ranges.claim(one).uids[0][1]
    ranges.release(first, other)
    with pytest.raises(ResourceExhausted):
        ranges.claim(other)
    ranges.release(first, one)
    assert ranges.claim(other).uids[0][1] == first


def test_what_the_killed_have_left_is_swept(tmp_path: Path) -> None:
    ranges = IdRanges((1 << 20, 65536 * 40), tmp_path / "claims")
    gone, lives, of_another = (
        _sandbox(tmp_path, "gone"),
        _sandbox(tmp_path, "lives"),
        _sandbox(tmp_path / "b", "c"),
    )
    for one in (gone, lives, of_another):
        ranges.claim(one)
    gone.rmdir()
    of_another.rmdir()
    ranges.sweep(gone.parent)
    assert {link.readlink() for link in ranges.claims.glob("[0-9]*")} == {lives, of_another}


def test_there_is_nothing_to_sweep_where_nobody_has_claimed(tmp_path: Path) -> None:
    IdRanges((1 << 20, 65536), tmp_path / "claims").sweep(tmp_path)
    assert not (tmp_path / "claims").exists()


def test_where_ranges_come_from(tmp_path: Path) -> None:
    assert IdRanges.of_host("1000000:131072", etc=tmp_path).pool == (1_000_000, 131_072)
    assert IdRanges.of_host("", etc=tmp_path).pool == (1_879_048_192, 268_435_456)
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("alice:100000:65536\nroot:500000:655360\n")
    assert IdRanges.of_host("", etc=tmp_path).pool == (500_000, 655_360)
    (tmp_path / "subgid").write_text("root:1:2\n")
    assert IdRanges.of_host("", etc=tmp_path).pool[0] == 1_879_048_192


@pytest.mark.parametrize("text", ["", "5", "a:b", "0:65536", "100000:5", "4294967000:65536"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_range(text)
    assert refused.value.code == "config-invalid"
