"""`aos inspect`: everything known about agents, as JSON."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import Option, Verb
from aos.cli._output import print_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show everything known about agents, as one JSON array",
    "AGENT+",
    options=(Option("output", "o", "FORMAT", "json", default="json", choices=("json",)),),
)


def main(args: Arguments) -> int:
    found: list[object] = []
    code = each(
        "inspect", args["agent"], lambda agent: found.append(_node.call("agent.inspect", agent=agent))
    )
    print_json(found)
    return code
