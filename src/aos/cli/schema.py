"""`aos schema`: the Agentfile's JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.cli._options import Verb

if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("Print the JSON Schema of the Agentfile, for editors", "")


def main(args: Arguments) -> int:
    from aos.cli._output import print_json
    from aos.compose.agentfiles import agentfile_schema

    print_json(agentfile_schema())
    return 0
