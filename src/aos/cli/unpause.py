"""`aos unpause`: let agents go on that were paused."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("Let agents go on that were paused", "AGENT+")


def main(args: Arguments) -> int:
    def unpause(agent: str) -> None:
        _node.call("agent.unpause", agent=agent)
        print(agent)

    return each("unpause", args["agent"], unpause)
