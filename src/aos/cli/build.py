"""`aos build`: from an Agentfile to a package in the local registry. Works without the daemon."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aos.cli._options import BUILD_ARG, LENT, Option, Verb
from aos.cli._values import count

if TYPE_CHECKING:
    from aos.build.progress.events import How
    from aos.cli._options import Arguments
    from aos.config import Config

__all__ = ["VERB", "main"]

VERB = Verb(
    "Build a package from an Agentfile",
    "CONTEXT?",
    options=(
        Option("file", "f", "FILE", "The Agentfile (default: Agentfile in the context)"),
        BUILD_ARG,
        Option("tag", "t", "REFERENCE", "What to call the package (default: <name>:<version>)", repeat=True),
        Option("output", "o", "DIR", "Write the package as an OCI layout, too"),
        Option("label", "", "KEY=VALUE", "A label of the package, before the Agentfile's", repeat=True),
        Option("iidfile", metavar="FILE", help="Write the digest of the package's manifest there, too"),
        Option("quiet", "q", help="Print only the digest of the package's manifest"),
        *LENT,
        Option("target", metavar="STAGE", help="Build this stage; the package is <version>-<STAGE>"),
        Option("platform", metavar="PLATFORM", help="Such as linux/amd64; has to be the host's"),
        Option("jobs", "j", "COUNT", "Steps executed at the same time (default: the number of CPUs)"),
        Option("cache-from", metavar="DIR", help="Use results that are kept there", repeat=True),
        Option("cache-to", metavar="DIR", help="Keep the results of this build there, too", repeat=True),
        Option("no-cache-filter", metavar="STAGE", help="Execute every step of this stage", repeat=True),
        Option(
            "plan",
            metavar="FORM",
            help="Print what would be done, and do nothing: text, json or dot",
            implied="text",
            choices=("text", "json", "dot"),
        ),
        Option("explain", help="Tell why each step was executed or was not, on standard error"),
        Option("no-lock", help="Do without Agentfile.lock: names mean what they mean today"),
        Option(
            "source-date-epoch",
            metavar="WHEN",
            help="The date of all files: seconds since 1970, or git (default: SOURCE_DATE_EPOCH, else 0)",
        ),
        Option(
            "check-reproducible",
            help="Build again from nothing in other circumstances; fail, and say why, when it differs",
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
            help="auto, tty (live display), plain (lines), or json (an event a line; also rawjson)",
            default="auto",
            choices=("auto", "tty", "plain", "json", "rawjson"),
        ),
    ),
)


def main(args: Arguments) -> int:
    from aos.compose.builds import build, build_plan, build_request
    from aos.config import load_config

    config, environ = load_config(os.environ), os.environ
    warnings: list[str] = []
    request = build_request(
        config,
        environ,
        context=Path(args["context"] or "."),
        file=Path(args["file"]) if args["file"] is not None else None,
        tags=args["tag"],
        labels=args["label"],
        build_args=args["build-arg"],
        output=Path(args["output"]) if args["output"] else None,
        target=args["target"],
        platform=args["platform"] or "",
        use_lock=not args["no-lock"],
        use_cache=not args["no-cache"],
        fresh_stages=args["no-cache-filter"],
        jobs=count(args["jobs"], "--jobs") if args["jobs"] else 0,
        cache_from=[_cache_directory(text, "--cache-from") for text in args["cache-from"]],
        cache_to=[_cache_directory(text, "--cache-to") for text in args["cache-to"]],
        secrets=args["secret"],
        ssh=args["ssh"],
        compression=args["compression"],
        epoch=args["source-date-epoch"] or "",
        warn=warnings.append,
    )
    if args["plan"]:
        for text in warnings:
            print(f"warning: {text}", file=sys.stderr)
        print(build_plan(config, environ, request, args["plan"]))
        return 0
    try:
        package = build(
            config,
            environ,
            request,
            _progress(args["quiet"], args["progress"]),
            warnings,
            twice=bool(args["check-reproducible"]),
        )
    finally:
        if args["explain"]:
            _explain(config, request.id)
    if args["iidfile"]:
        _write_digest(Path(args["iidfile"]), package.manifest_digest)
    print(package.manifest_digest)
    return 0


def _write_digest(file: Path, digest: str) -> None:
    """Without a line's end, as Docker does it."""
    from aos.compose.builds import write_digest
    from aos.errors import InvalidArgument

    try:
        write_digest(file, digest)
    except OSError as error:
        raise InvalidArgument(
            f"the package is built, but its digest cannot be written to {file}: {error.strerror}",
            code="usage",
            hint=f"it is {digest}; --iidfile takes a file in a directory that you may write to",
        ) from error


def _cache_directory(text: str, option: str) -> Path:
    if text.startswith("type="):  # `./type=…` is a directory
        from aos.errors import InvalidArgument

        raise InvalidArgument(
            f"{option} takes a directory, not {text!r:.80}",
            code="usage",
            hint=f"{option} DIR; a registry cannot keep results yet",
        )
    return Path(text)


def _explain(config: Config, id: str) -> None:
    """On standard error, after the progress; a build that failed before it began has nothing to tell."""
    from aos.cli._explanation import explanation_lines
    from aos.compose.builds import build_explanation
    from aos.errors import NotFound

    with contextlib.suppress(NotFound):
        for line in explanation_lines(build_explanation(config, id)):
            print(line, file=sys.stderr)


def _progress(quiet: bool, how: str) -> How:
    """Everything but the digest goes to standard error."""
    if quiet:
        return "quiet"
    if how in ("json", "rawjson"):
        return "json"
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return "live" if how == "tty" or (how == "auto" and terminal) else "plain"
