"""`aos stop`: end agents, with time to finish."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import Option, Verb
from aos.cli._values import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Stop agents: ask them with their stop signal, kill them when the time is over",
    "AGENT+",
    options=(
        Option(
            "time",
            "t",
            "SECONDS",
            "How long to wait before it is killed (default: as the package says, else 10)",
        ),
    ),
)


def main(args: Arguments) -> int:
    timeout = {} if args["time"] is None else {"timeout": parse_duration(args["time"], "-t")}
    with _node.connect() as node:
        asked = {agent: node.send("agent.stop", agent=agent, **timeout) for agent in args["agent"]}

        def stop(agent: str) -> None:
            node.receive(asked[agent])
            print(agent)

        return each("stop", args["agent"], stop)
