"""`aos pause`: freeze agents where they are."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("Freeze agents where they are: nothing of them runs until aos unpause", "AGENT+")


def main(args: Arguments) -> int:
    def pause(agent: str) -> None:
        _node.call("agent.pause", agent=agent)
        print(agent)

    return each("pause", args["agent"], pause)
