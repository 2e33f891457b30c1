"""`aos validate`: read an Agentfile and tell what it says, or all that is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.cli._options import Option, Verb

if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Check an Agentfile without building it",
    "CONTEXT?",
    options=(
        Option("file", "f", "PATH", "The Agentfile (default: the one of the context)"),
        Option("output", "o", "FORMAT", "json", choices=("json",)),
    ),
)


def main(args: Arguments) -> int:
    from pathlib import Path

    from aos.agentfile import AgentfileError, load
    from aos.build.inputs import find_agentfile
    from aos.cli._output import print_json

    file = Path(args["file"]) if args["file"] else find_agentfile(Path(args["context"] or "."))
    try:
        definition = load(file)
    except AgentfileError as error:
        if args["output"] != "json":
            raise
        print_json(
            [
                {
                    name: getattr(problem, name)
                    for name in ("file", "line", "column", "code", "message", "hint")
                }
                for problem in error.problems
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
