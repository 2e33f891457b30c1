"""`aos validate`: read an Agentfile and tell what it says, or all that is wrong with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aos.cli._options import BUILD_ARG, OUTPUT, Option, Verb

if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Check an Agentfile without building it",
    "CONTEXT?",
    options=(
        Option("file", "f", "PATH", "The Agentfile (default: the one of the context)"),
        BUILD_ARG,
        Option("resolved", help="Show it with all that it extends, and where each value came from"),
        OUTPUT,
    ),
)
_PROBLEM = ("file", "line", "column", "code", "message", "hint", "via")


def main(args: Arguments) -> int:
    from pathlib import Path

    from aos.cli._output import print_json
    from aos.compose.agentfiles import agentfile
    from aos.config import load_config
    from aos.errors import InvalidArgument

    try:
        resolved = agentfile(
            load_config(os.environ),
            os.environ,
            context=Path(args["context"] or "."),
            file=Path(args["file"]) if args["file"] else None,
            build_args=args["build-arg"],
        )
    except InvalidArgument as error:
        problems = getattr(error, "problems", None)
        if args["output"] != "json" or problems is None:
            raise
        print_json([{name: getattr(problem, name) for name in _PROBLEM} for problem in problems])
        return error.exit_code
    if args["output"] == "json":
        print_json(resolved.to_json() if args["resolved"] else [])
    elif args["resolved"]:
        print(resolved.to_yaml(), end="")
    else:
        definition = resolved.definition
        steps = sum(len(stage.steps) for stage in definition.stages)
        metadata = definition.metadata
        stages = "1 stage" if len(definition.stages) == 1 else f"{len(definition.stages)} stages"
        print(f"{resolved.file}: {metadata.name} {metadata.version}: {stages}, {steps} steps; no problems")
    return 0
