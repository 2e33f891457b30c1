"""`aos cache`: what builds keep to be quicker the next time: results of steps, and cache mounts."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import ago, print_json, size, table, wants_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.build.cache.prune import Item
    from aos.cli._options import Arguments

__all__ = ["VERBS"]

_FILTERS = ("kind", "package", "stage", "step", "id")
_FILTER = Option(
    "filter", metavar="KEY=VALUE", repeat=True, help=f"Only those where {', '.join(_FILTERS)} is (like) that"
)
_STEP_WIDTH = 60


def _ls(args: Arguments) -> int:
    items = _chosen(args)
    if wants_json(args):
        print_json([_facts(item) for item in items])
        return 0
    now = time.time()
    table(
        ("ID", "KIND", "SIZE", "COST", "USED", "PACKAGE", "STEP"),
        [
            (
                item.id[:12] if item.kind == "result" else item.id,
                item.kind,
                size(item.size),
                f"{item.seconds:.1f} s" if item.kind == "result" else "-",
                ago(max(0.0, now - item.used_at)),
                item.package or "-",
                item.step if len(item.step) <= _STEP_WIDTH else item.step[: _STEP_WIDTH - 1] + "…",
            )
            for item in items
        ],
    )
    return 0


def _du(args: Arguments) -> int:
    items = _chosen(args)
    sums = {
        "results": _sum(item for item in items if item.kind == "result"),
        "mounts": _sum(item for item in items if item.kind == "mount"),
        "packages": _sum(item for item in items if item.kind == "packages"),
    }
    if wants_json(args):
        print_json(sums)
        return 0
    table(
        ("WHAT", "COUNT", "SIZE"),
        [(name, one["count"], size(one["bytes"])) for name, one in sums.items()],
    )
    return 0


def _prune(args: Arguments) -> int:
    from aos.cli._values import count, parse_duration, parse_size
    from aos.compose.caches import prune_cache
    from aos.config import load_config

    policy: dict[str, Any] = {"filters": _filters(args)}
    if args["max-age"] is not None:
        policy["max_age"] = parse_duration(args["max-age"], "--max-age")
    if args["max-size"] is not None:
        policy["max_size"] = parse_size(args["max-size"], "--max-size")
    if args["keep-last"] is not None:
        policy["keep_last"] = count(args["keep-last"], "--keep-last")
    removed = prune_cache(load_config(os.environ), policy)
    if wants_json(args):
        print_json([_facts(item) for item in removed])
        return 0
    results = _sum(item for item in removed if item.kind == "result")
    mounts = _sum(item for item in removed if item.kind == "mount")
    packages = _sum(item for item in removed if item.kind == "packages")
    print(f"removed {results['count']} results and {mounts['count']} mounts, freed {size(mounts['bytes'])}")
    for what, sum in (("layers", results), ("packages", packages)):
        if sum["bytes"]:
            print(
                f"{what} of {size(sum['bytes'])} go with the next `aos prune`, where nothing else needs them"
            )
    return 0


def _chosen(args: Arguments) -> list[Item]:
    from aos.compose.caches import cache_items
    from aos.config import load_config

    filters = _filters(args)
    return [item for item in cache_items(load_config(os.environ)) if item.matches(filters)]


def _filters(args: Arguments) -> dict[str, str]:
    from aos.cli._options import nearest
    from aos.errors import InvalidArgument

    found = {}
    for text in args["filter"]:
        name, equals, value = text.partition("=")
        if not equals or name not in _FILTERS:
            guess = nearest(name, _FILTERS)
            raise InvalidArgument(
                f"--filter {text!r}: KEY=VALUE, where KEY is one of {', '.join(_FILTERS)}",
                code="usage",
                hint=f"did you mean {guess}={value}?" if guess and equals else None,
            )
        found[name] = value
    return found


def _sum(items: Iterable[Item]) -> dict[str, int]:
    """Layers that several results share count once."""
    found = list(items)
    sizes = {item.layer or item.id: item.size for item in found}
    return {"count": len(found), "bytes": sum(sizes.values())}


def _facts(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "kind": item.kind,
        "size": item.size,
        "used_at": item.used_at,
        "step": item.step,
        "package": item.package or None,
        "stage": item.stage or None,
        "layer": item.layer or None,
        "seconds": item.seconds,
    }


VERBS = {
    "ls": (Verb("List what builds keep, the last used first", options=(_FILTER, OUTPUT)), _ls),
    "du": (Verb("Show what it takes", options=(_FILTER, OUTPUT)), _du),
    "prune": (
        Verb(
            "Remove what builds keep: all of it, or what is beyond a limit",
            options=(
                Option("max-age", metavar="DURATION", help="Keep what was used within it: 24h, 7d"),
                Option("max-size", metavar="SIZE", help="Keep what was used last, up to it: 10g"),
                Option("keep-last", metavar="COUNT", help="Keep so many results in any case, the last used"),
                _FILTER,
                OUTPUT,
            ),
        ),
        _prune,
    ),
}
