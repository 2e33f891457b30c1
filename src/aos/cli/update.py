"""`aos update`: change limits and the restart policy of agents, running ones too."""

from __future__ import annotations

from aos.cli import _node, _values
from aos.cli._each import each
from aos.cli._options import Option, Verb
from aos.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Change limits and the restart policy of agents, at once and for good",
    "AGENT+",
    options=(
        Option("memory", "m", "SIZE", "Most memory, such as 512m or 2g"),
        Option("cpus", "", "NUMBER", "Most CPUs, such as 0.5"),
        Option("pids", "", "NUMBER", "Most processes and threads"),
        Option("restart", "", "POLICY", "never, on-failure[:N], always or unless-stopped"),
    ),
)


def main(args: Arguments) -> int:
    limits: dict[str, float] = {}
    if args["memory"] is not None:
        limits["memory"] = _values.parse_size(args["memory"], "--memory")
    if args["cpus"] is not None:
        limits["cpus"] = _values.cpus(args["cpus"], "--cpus")
    if args["pids"] is not None:
        limits["pids"] = _values.count(args["pids"], "--pids")
    call: dict[str, object] = {"limits": limits} if limits else {}
    if args["restart"] is not None:
        call["restart"] = _values.restart_policy(args["restart"], "--restart")
    if not call:
        raise InvalidArgument("there is nothing to change", code="usage")

    def update(agent: str) -> None:
        _node.call("agent.update", agent=agent, **call)
        print(agent)

    return each("update", args["agent"], update)
