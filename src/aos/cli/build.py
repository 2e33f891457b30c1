"""`aos build`: from an Agentfile to a package in the local registry. Works without the daemon."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aos.cli._options import Option, Verb
from aos.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aos.build import Progress
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Build a package from an Agentfile",
    "CONTEXT?",
    options=(
        Option("file", "f", "FILE", "The Agentfile (default: Agentfile in the context)"),
        Option("tag", "t", "REFERENCE", "What to call the package (default: <name>:<version>)"),
        Option("output", "o", "DIR", "Write the package as an OCI layout, too"),
        Option("quiet", "q", help="Print only the digest of the package's manifest"),
        Option("no-cache", help="Execute every step, also what is known from earlier builds"),
        Option(
            "progress",
            metavar="HOW",
            help="auto, tty (live display) or plain (lines)",
            default="auto",
            choices=("auto", "tty", "plain"),
        ),
    ),
)

_NAMES = ("Agentfile", "Agentfile.yaml", "Agentfile.yml", "Agentfile.json")


def main(args: Arguments) -> int:
    from aos import compose
    from aos.agentfile import load
    from aos.build import BuildRequest, build_blocking, source_date_epoch
    from aos.config import load_config
    from aos.oci.reference import parse_reference

    context = Path(args["context"] or ".")
    request = BuildRequest(
        definition=load(_agentfile(args["file"], context)),
        context=context,
        tag=parse_reference(args["tag"]) if args["tag"] else None,
        output=Path(args["output"]) if args["output"] else None,
        use_cache=not args["no-cache"],
        epoch=source_date_epoch(os.environ),
    )
    services = compose.build_services(load_config(os.environ), os.environ)
    with _progress(args["quiet"], args["progress"]) as progress:
        package = build_blocking(request, services, progress)
    print(package.manifest_digest)
    return 0


def _agentfile(file: str | None, context: Path) -> Path:
    """The file named, else the first of the usual names in the context."""
    if file == "-":
        raise InvalidArgument("the Agentfile cannot be read from standard input", code="usage")
    if file is not None:
        return Path(file)
    if not context.is_dir():
        raise NotFound(
            f"the build context {str(context)!r} is not a directory",
            code="context-not-found",
            hint="aos build [CONTEXT]: name the directory that holds the Agentfile",
        )
    found = next((context / name for name in _NAMES if (context / name).exists()), None)
    if found is None:
        raise NotFound(
            f"there is no Agentfile in {str(context)!r}",
            code="agentfile-not-found",
            hint="`aos init` writes one; -f names another file",
        )
    return found


def _progress(quiet: bool, how: str) -> AbstractContextManager[Progress]:
    """Everything but the digest goes to standard error."""
    if quiet:
        from aos.build import Quiet

        return contextlib.nullcontext(Quiet())
    if how == "tty" or (how == "auto" and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"):
        from aos.build.live import LiveProgress

        return LiveProgress()
    from aos.build import PlainProgress

    return contextlib.nullcontext(PlainProgress(sys.stderr))
