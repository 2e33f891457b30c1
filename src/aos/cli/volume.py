"""`aos volume`: named storage that outlives agents."""

from __future__ import annotations

import time

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import ago, print_json, size, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERBS"]


def _list(args: Arguments) -> int:
    found = _node.call("volume.list")
    if wants_json(args):
        print_json(found)
        return 0
    now = time.time()
    table(
        ("VOLUME", "SIZE", "CREATED", "AGENTS"),
        [
            (one["volume"], size(one["bytes"]), ago(now - one["created_at"]), ", ".join(one["agents"]) or "-")
            for one in found
        ],
    )
    return 0


def _remove(args: Arguments) -> int:
    def remove(volume: str) -> None:
        _node.call("volume.remove", volume=volume)
        print(volume)

    return each("volume rm", args["volume"], remove)


def _inspect(args: Arguments) -> int:
    found: list[object] = []
    code = each(
        "volume inspect",
        args["volume"],
        lambda volume: found.append(_node.call("volume.inspect", volume=volume)),
    )
    print_json(found)
    return code


VERBS = {
    "ls": (Verb("List volumes and the agents that use them", options=(OUTPUT,)), _list),
    "rm": (Verb("Remove volumes that no agent uses, with all that is in them", "VOLUME+"), _remove),
    "inspect": (
        Verb(
            "Show everything known about volumes, as one JSON array",
            "VOLUME+",
            options=(Option("output", "o", "FORMAT", "json", default="json", choices=("json",)),),
        ),
        _inspect,
    ),
}
