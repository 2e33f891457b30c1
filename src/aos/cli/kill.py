"""`aos kill`: send a signal."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import Option, Verb
from aos.cli._values import parse_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Send a signal to agents",
    "AGENT+",
    options=(Option("signal", "s", "SIGNAL", "Name or number of the signal", default="KILL"),),
)


def main(args: Arguments) -> int:
    signal = parse_signal(args["signal"], "-s")

    def kill(agent: str) -> None:
        _node.call("agent.kill", agent=agent, signal=signal)
        print(agent)

    return each("kill", args["agent"], kill)
