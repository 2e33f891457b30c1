"""`aos history`: the layers of a package and the steps that made them, newest first."""

from __future__ import annotations

from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import print_json, size, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments
    from aos.package.history import HistoryEntry

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show the layers of a package and the steps that made them, newest first",
    "PACKAGE",
    (
        Option("no-trunc", help="Show digests, cache keys and steps in full"),
        Option("quiet", "q", help="Print only the digests of layers"),
        OUTPUT,
    ),
)

_STEP_WIDTH = 60


def main(args: Arguments) -> int:
    import os

    from aos.compose.packages import package_history
    from aos.config import load_config

    entries = package_history(load_config(os.environ), args["package"], sizes=not args["quiet"])
    if wants_json(args):
        print_json([_facts(entry, unpacked) for entry, unpacked in entries])
    elif args["quiet"]:
        for entry, _ in entries:
            if entry.layer is not None:
                print(entry.layer.digest)
    else:
        whole = args["no-trunc"]
        table(
            (
                "LAYER",
                "SIZE",
                "UNPACKED",
                "STAGE",
                "CACHE KEY",
                "CREATED BY",
                *(["DIFF ID"] if whole else []),
            ),
            [_row(entry, unpacked, whole) for entry, unpacked in entries],
        )
    return 0


def _row(entry: HistoryEntry, unpacked: int | None, whole: bool) -> list[str]:
    layer, facts, step = entry.layer, entry.facts, entry.created_by or "-"
    if not whole and len(step) > _STEP_WIDTH:
        step = step[: _STEP_WIDTH - 1] + "…"
    return [
        (layer.digest if whole else layer.digest[7:19]) if layer else "-",
        size(layer.size) if layer else "0 B",
        size(unpacked) if layer else "0 B",
        facts.stage or "-",
        (facts.cache_key if whole else facts.cache_key[:12]) or "-",
        step,
        *([layer.diff_id if layer else "-"] if whole else []),
    ]


def _facts(entry: HistoryEntry, unpacked: int | None) -> dict[str, object]:
    layer = entry.layer
    return {
        "created_by": entry.created_by,
        "created": entry.created,
        "comment": entry.comment,
        "stage": entry.facts.stage,
        "cache_key": entry.facts.cache_key,
        "empty_layer": layer is None,
        "digest": layer.digest if layer else None,
        "diff_id": layer.diff_id if layer else None,
        "media_type": layer.media_type if layer else None,
        "size": layer.size if layer else 0,
        "unpacked_size": unpacked or 0,
    }
