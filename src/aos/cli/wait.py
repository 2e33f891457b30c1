"""`aos wait`: block until agents have finished."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("Wait until agents have finished and print their exit codes", "AGENT+")


def main(args: Arguments) -> int:
    def wait(agent: str) -> None:
        print(_node.wait(agent)["shell_code"], flush=True)

    return each("wait", args["agent"], wait)
