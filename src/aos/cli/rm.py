"""`aos rm`: remove agents."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Remove agents, with everything they wrote",
    "AGENT+",
    options=(
        Option("force", "f", help="Kill the ones that run; do not complain about ones that do not exist"),
    ),
)


def main(args: Arguments) -> int:
    from aos.errors import NotFound

    force = args["force"]
    with _node.connect() as node:
        agents = dict.fromkeys(args["agent"])
        asked = {agent: node.send("agent.remove", agent=agent, force=force) for agent in agents}

        def remove(agent: str) -> None:
            try:
                node.receive(asked[agent])
            except NotFound:
                if not force:
                    raise
            else:
                print(agent)

        return each("rm", args["agent"], remove)
