"""`aos top`: the processes inside of a running agent."""

from __future__ import annotations

import time

from aos.cli import _node
from aos.cli._options import OUTPUT, Verb
from aos.cli._output import ago, print_json, size, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show the processes inside of a running agent, numbered as it numbers them", "AGENT", options=(OUTPUT,)
)


def main(args: Arguments) -> int:
    found = _node.call("agent.top", agent=args["agent"])
    if wants_json(args):
        print_json(found)
        return 0
    now = time.time()
    several = len({one["replica"] for one in found}) > 1
    table(
        (
            *(("REPLICA",) if several else ()),
            "PID",
            "PPID",
            "USER",
            "CPU TIME",
            "MEMORY",
            "STARTED",
            "COMMAND",
        ),
        [
            (
                *((one["replica"] + 1,) if several else ()),
                one["pid"],
                one["ppid"],
                one["user"],
                "-" if one["cpu_seconds"] is None else f"{one['cpu_seconds']:.2f} s",
                "-" if one["memory_bytes"] is None else size(one["memory_bytes"]),
                "-" if one["started_at"] is None else ago(max(0.0, now - one["started_at"])),
                one["command"],
            )
            for one in found
        ],
    )
    return 0
