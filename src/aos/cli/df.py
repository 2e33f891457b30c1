"""`aos df`: what takes space."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._options import OUTPUT, Verb
from aos.cli._output import print_json, size, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("Show what takes space", options=(OUTPUT,))


def main(args: Arguments) -> int:
    kinds = _node.call("node.df")
    if wants_json(args):
        print_json(kinds)
        return 0
    table(
        ("KIND", "COUNT", "SIZE"),
        [(kind, one["count"], size(one["bytes"])) for kind, one in kinds.items()],
    )
    return 0
