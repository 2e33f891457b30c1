"""`aos build`: from an Agentfile to a package in the local registry. Works without the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aos.cli._options import BUILD_ARG, Option, Verb

if TYPE_CHECKING:
    from typing import Literal

    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Build a package from an Agentfile",
    "CONTEXT?",
    options=(
        Option("file", "f", "FILE", "The Agentfile (default: Agentfile in the context)"),
        BUILD_ARG,
        Option("tag", "t", "REFERENCE", "What to call the package (default: <name>:<version>)"),
        Option("output", "o", "DIR", "Write the package as an OCI layout, too"),
        Option("quiet", "q", help="Print only the digest of the package's manifest"),
        Option(
            "secret",
            metavar="SECRET",
            help="id=NAME,src=FILE or id=NAME,env=VARIABLE, for steps",
            repeat=True,
        ),
        Option(
            "ssh",
            metavar="AGENT",
            help="default, or ID=SOCKET, or ID=KEYFILE: an SSH agent for steps",
            repeat=True,
        ),
        Option("no-cache", help="Execute every step, also what is known from earlier builds"),
        Option(
            "compression",
            metavar="HOW",
            help="How the new layers are compressed: gzip, zstd or none",
            default="gzip",
            choices=("gzip", "zstd", "none"),
        ),
        Option(
            "progress",
            metavar="HOW",
            help="auto, tty (live display) or plain (lines)",
            default="auto",
            choices=("auto", "tty", "plain"),
        ),
    ),
)


def main(args: Arguments) -> int:
    from aos import compose
    from aos.config import load_config

    package = compose.build(
        load_config(os.environ),
        os.environ,
        context=Path(args["context"] or "."),
        file=Path(args["file"]) if args["file"] is not None else None,
        tag=args["tag"],
        build_args=args["build-arg"],
        output=Path(args["output"]) if args["output"] else None,
        use_cache=not args["no-cache"],
        secrets=args["secret"],
        ssh=args["ssh"],
        compression=args["compression"],
        progress=_progress(args["quiet"], args["progress"]),
    )
    print(package.manifest_digest)
    return 0


def _progress(quiet: bool, how: str) -> Literal["quiet", "live", "plain"]:
    """Everything but the digest goes to standard error."""
    if quiet:
        return "quiet"
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return "live" if how == "tty" or (how == "auto" and terminal) else "plain"
