"""What goes when the cache is pruned: by age, by size, by number, by what it is."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aos.build.cache.prune import Item, Policy

NOW = 1000.0


def _item(number: int, size: int, age: float, kind: str = "result", package: str = "it") -> Item:
    return Item(
        "mount" if kind == "mount" else "result",
        f"{number:064x}",
        size,
        NOW - age,
        step="run make",
        package=package,
        layer=f"sha256:{number}" if kind == "result" else "",
    )


def _ids(policy: Policy, items: list[Item]) -> list[int]:
    return [int(item.id, 16) for item in policy.doomed(items, NOW)]


ITEMS = [_item(1, 10, 5), _item(2, 20, 50), _item(3, 30, 500), _item(4, 40, 70, "mount")]


def test_without_a_limit_everything_goes() -> None:
    assert _ids(Policy(), ITEMS) == [1, 2, 4, 3]


def test_limits_say_what_stays() -> None:
    assert _ids(Policy(max_age=60), ITEMS) == [4, 3]
    assert _ids(Policy(max_size=30), ITEMS) == [4, 3]
    assert _ids(Policy(max_size=45), ITEMS) == [4, 3]
    assert _ids(Policy(max_age=60, max_size=15), ITEMS) == [2, 4, 3]
    assert _ids(Policy(keep_last=2), ITEMS) == [4, 3]
    assert _ids(Policy(keep_last=3, max_age=1), ITEMS) == [4], "mounts are not results"


def test_filters_choose_among_what_goes() -> None:
    other = replace(_item(5, 1, 1), package="other", stage="s", step="copy a /")
    items = [*ITEMS, other]
    assert _ids(Policy(filters={"package": "other"}), items) == [5]
    assert _ids(Policy(filters={"kind": "mount"}), items) == [4]
    assert _ids(Policy(filters={"step": "copy"}), items) == [5]
    assert _ids(Policy(filters={"stage": "s", "kind": "mount"}), items) == []
    assert _ids(Policy(filters={"id": f"{2:064x}"}), items) == [2]


def test_a_layer_that_results_share_counts_once() -> None:
    twins = [_item(1, 10, 1), replace(_item(2, 10, 2), layer="sha256:1"), _item(3, 10, 3)]
    assert _ids(Policy(max_size=20), twins) == []
    assert _ids(Policy(max_size=10), twins) == [3]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100)), max_size=12),
    st.integers(0, 300),
    st.integers(0, 5),
)
def test_what_stays_fits_or_was_to_be_kept_and_what_goes_was_used_before_it(
    drawn: list[tuple[int, int]], most: int, keep: int
) -> None:
    items = [_item(number, size, age) for number, (size, age) in enumerate(drawn)]
    doomed = Policy(max_size=most, keep_last=keep).doomed(items, NOW)
    stays = [item for item in items if item not in doomed]
    assert sum(item.size for item in stays) <= most or len(stays) <= keep
    newest = sorted(items, key=lambda item: (-item.used_at, item.id))[:keep]
    assert all(item in stays for item in newest)
