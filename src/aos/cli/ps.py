"""`aos ps`: list agents."""

from __future__ import annotations

import time

from aos.cli import _node, _records
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import ago, print_json, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "List agents",
    options=(
        Option("all", "a", help="Finished agents, too"),
        Option("quiet", "q", help="Only ids"),
        Option("no-trunc", help="Do not shorten anything"),
        OUTPUT,
    ),
)


def main(args: Arguments) -> int:
    agents = _node.call("agent.list", all=args["all"])
    agents.sort(key=lambda agent: -agent["created_at"])
    if wants_json(args):
        print_json(agents)
        return 0
    if args["quiet"]:
        for agent in agents:
            print(agent["agent"])
        return 0
    now = time.time()
    table(
        ("AGENT ID", "NAME", "PACKAGE", "STATUS", "CREATED", "PID"),
        [
            (
                agent["agent"],
                _short(agent["name"], args, 30),
                agent["package"]["reference"]
                if args["no-trunc"]
                else _short(_records.package(agent), args, 40),
                _records.status(agent, now),
                ago(now - agent["created_at"]),
                agent["pid"] if agent.get("pid") and agent["status"] == "running" else "-",
            )
            for agent in agents
        ],
    )
    return 0


def _short(text: str, args: Arguments, length: int) -> str:
    return text if args["no-trunc"] or len(text) <= length else text[: length - 1] + "…"
