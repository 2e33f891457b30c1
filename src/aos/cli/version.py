"""`aos version`."""

from __future__ import annotations

from aos import __version__
from aos.cli._options import OUTPUT, Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show the versions of aos and of the daemon",
    options=(Option("client", help="Only that of the command"), OUTPUT),
)


def main(args: Arguments) -> int:
    print(f"aos {__version__}")
    return 0
