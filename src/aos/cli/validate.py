"""`aos validate`: read an Agentfile and tell what it says, or all that is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.cli._options import OUTPUT, Option, Verb

if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Check an Agentfile without building it",
    "CONTEXT?",
    options=(
        Option("file", "f", "PATH", "The Agentfile (default: the one of the context)"),
        OUTPUT,
    ),
)


def main(args: Arguments) -> int:
    from pathlib import Path

    from aos.cli._output import print_json
    from aos.compose import agentfile
    from aos.errors import InvalidArgument

    try:
        file, definition = agentfile(
            Path(args["context"] or "."), Path(args["file"]) if args["file"] else None
        )
    except InvalidArgument as error:
        problems = getattr(error, "problems", None)
        if args["output"] != "json" or problems is None:
            raise
        print_json(
            [
                {
                    name: getattr(problem, name)
                    for name in ("file", "line", "column", "code", "message", "hint")
                }
                for problem in problems
            ]
        )
        return error.exit_code
    if args["output"] == "json":
        print_json([])
        return 0
    steps = sum(len(stage.steps) for stage in definition.stages)
    metadata = definition.metadata
    stages = "1 stage" if len(definition.stages) == 1 else f"{len(definition.stages)} stages"
    print(f"{file}: {metadata.name} {metadata.version}: {stages}, {steps} steps; no problems")
    return 0
