"""`aos lock`: write down, check and renew what an Agentfile's names stand for. Works without the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aos.cli._options import BUILD_ARG, LENT, Option, Verb

if TYPE_CHECKING:
    from aos.build.progress.events import How
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

_EVERYTHING = "*"

VERB = Verb(
    "Write Agentfile.lock: exactly which packages and bases an Agentfile's names stand for",
    "CONTEXT?",
    options=(
        Option("file", "f", "FILE", "The Agentfile (default: Agentfile in the context)"),
        Option("check", help="Write nothing and build nothing: exit with 1 if the lock is out of date"),
        Option(
            "upgrade",
            metavar="NAME",
            help="Take a newer NAME (package, plugin); without NAME, everything newer",
            repeat=True,
            implied=_EVERYTHING,
        ),
        BUILD_ARG,
        *LENT,
        Option("quiet", "q", help="Print nothing but errors"),
    ),
)


def main(args: Arguments) -> int:
    from aos.compose.locks import check_lock, lock
    from aos.config import load_config
    from aos.errors import InvalidArgument

    config = load_config(os.environ)
    context, agentfile = Path(args["context"] or "."), Path(args["file"]) if args["file"] else None
    if args["check"]:
        if args["upgrade"]:
            raise InvalidArgument("--check changes nothing, so it cannot go with --upgrade", code="usage")
        file, said = check_lock(
            config, os.environ, context=context, file=agentfile, build_args=args["build-arg"]
        )
        for line in said:
            print(f"{file}: {line}", file=sys.stderr)
        if said:
            print("`aos lock` brings it up to date", file=sys.stderr)
        elif not args["quiet"]:
            print(f"{file} fits the Agentfile")
        return 1 if said else 0
    names = set(args["upgrade"])
    file, changes = lock(
        config,
        os.environ,
        context=context,
        file=agentfile,
        build_args=args["build-arg"],
        secrets=args["secret"],
        ssh=args["ssh"],
        upgrade=None if _EVERYTHING in names else names,
        progress=_progress(args["quiet"]),
    )
    if not args["quiet"]:
        for line in changes:
            print(line)
        print(f"{file}: {len(changes)} changes" if changes else f"{file} is up to date")
    return 0


def _progress(quiet: bool) -> How:
    if quiet:
        return "quiet"
    return "live" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
