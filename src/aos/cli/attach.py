"""`aos attach`: connect to a running agent's streams."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._options import Option, Verb
from aos.cli._session import Session
from aos.cli._streams import CLOSED, DETACHED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Connect to the streams of a running agent, until it ends (its exit code becomes ours) or, with a terminal, "
    "Ctrl-P Ctrl-Q is typed. What it wrote before is in aos logs",
    "AGENT",
    options=(Option("no-stdin", help="Do not forward standard input"),),
)


def main(args: Arguments) -> int:
    with _node.connect() as node:
        attached, descriptors = node.call_with_descriptors("agent.attach", agent=args["agent"])
        answer = _node.Answer(node, "agent.wait", agent=args["agent"])
        with Session(stdin=not args["no-stdin"], terminal=attached["terminal"]) as session:
            session.signals(args["agent"])
            outcome = session.carry(descriptors, answer)
        if outcome == DETACHED:
            return 0
        if outcome == CLOSED:
            raise BrokenPipeError
        code: int = answer.result()["exit"]["shell_code"]
    return code
