"""`aos unshare`: a command as the root of the user namespace that agents and builds of this user are in.

What agents have written belongs to the user's subordinate ids: from outside, its owner cannot even remove it."""

from __future__ import annotations

import os

from aos.cli._options import Verb
from aos.errors import NotFound, PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Run a command as root of the user namespace that agents are in; without one, a shell. For root, just run it",
    "COMMAND? ARGS...",
    stop_at_first_positional=True,
)


def main(args: Arguments) -> int:
    """aos.cli.main has gone into the namespace already."""
    words = [args["command"] or os.environ.get("SHELL") or "/bin/sh", *args["args"]]
    try:
        os.execvp(words[0], words)
    except FileNotFoundError as error:
        raise NotFound(
            f"no command {words[0]!r:.60}", code="file-not-found", hint="check its name"
        ) from error
    except PermissionError as error:
        raise PermissionDenied(f"{words[0]} cannot be run: {error.strerror}") from error
