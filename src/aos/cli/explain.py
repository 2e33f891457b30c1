"""`aos explain`: why each step of a build was executed or was not: which input changed since which build."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aos.cli._options import OUTPUT, Verb
from aos.cli._output import print_json, wants_json

if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Tell why steps of a build were executed, or were not; BUILD is an id, or LAST", "BUILD?", (OUTPUT,)
)


def main(args: Arguments) -> int:
    from aos.cli._explanation import explanation_facts, explanation_lines
    from aos.compose.builds import build_explanation
    from aos.config import load_config

    explanation = build_explanation(load_config(os.environ), args["build"] or "LAST")
    if wants_json(args):
        print_json(explanation_facts(explanation))
    else:
        for line in explanation_lines(explanation):
            print(line)
    return 0
