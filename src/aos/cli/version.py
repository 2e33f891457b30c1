"""`aos version`."""

from __future__ import annotations

from aos import __version__
from aos.cli import _node
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import print_json, wants_json
from aos.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show the versions of aos and of the daemon",
    options=(Option("client", help="Only that of the command"), OUTPUT),
)


def main(args: Arguments) -> int:
    if args["client"]:
        if wants_json(args):
            print_json({"aos": __version__})
        else:
            print(f"aos {__version__}")
        return 0
    node = _of_node()
    if wants_json(args):
        print_json({"aos": __version__, "node": node})
    else:
        print(f"aos {__version__}\nnode {node or 'not running'}")
    return 0


def _of_node() -> str | None:
    """The daemon's, or None when there is none: it is not started to be asked."""
    try:
        with _node.connect(start=False) as node:
            version: str = node.call("node.status")["version"]
            return version
    except Unavailable as error:
        if error.code != "daemon-not-running":
            raise
        return None
