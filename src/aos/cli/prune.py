"""`aos prune`: remove what is not needed any more."""

from __future__ import annotations

import posix
import sys

from aos.cli import _node
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import print_json, size, wants_json
from aos.errors import Aborted, FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Remove finished agents and what nothing refers to any more",
    options=(
        Option("all", "a", help="Packages that no agent uses and the build cache, too"),
        Option("force", "f", help="Do not ask"),
        OUTPUT,
    ),
)


def main(args: Arguments) -> int:
    if not args["force"]:
        _confirm(args["all"])
    removed = _node.call("node.prune", all=args["all"])
    if wants_json(args):
        print_json(removed)
        return 0
    freed = removed.get("bytes", 0)
    for kind, what in removed.items():
        if kind != "bytes" and what:
            print(f"{kind}: {len(what) if isinstance(what, (list, dict)) else what}")
    print(f"freed {size(freed)}")
    return 0


def _confirm(everything: bool) -> None:
    if not posix.isatty(0):
        raise FailedPrecondition(
            "prune asks before it removes anything, and there is nobody to ask",
            code="confirmation-needed",
            hint="aos prune -f does not ask",
        )
    what = "all finished agents and unused layers" + (", packages and build cache" if everything else "")
    print(f"This removes {what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Aborted("nothing was removed", code="not-confirmed")
