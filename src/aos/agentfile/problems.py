"""What is wrong with an Agentfile, where exactly, and what would be right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AgentfileError", "Problem"]


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""
    message: str
    code: str = "agentfile-invalid"
    hint: str = ""
    source_line: str = ""
    via: tuple[str, ...] = ()
    """The places of the `extends` that lead to the file, nearest first."""

    def render(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.message}"
        if self.source_line.strip():
            shown = self.source_line.expandtabs(1)[:200]
            text += f"\n    {shown}\n    {' ' * min(self.column - 1, 200)}^"
        text += "".join(f"\n    extended by {place}" for place in self.via)
        return text + (f"\n    hint: {self.hint}" if self.hint else "")


class AgentfileError(InvalidArgument):
    """All problems at once, in the order of their places; those of the file itself before those of what it extends."""

    default_code = "agentfile-invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda one: (len(one.via), one.line, one.column)))
        count = len(self.problems)
        head = "the Agentfile has a problem" if count == 1 else f"the Agentfile has {count} problems"
        super().__init__(
            f"{head}:\n" + "\n".join(problem.render() for problem in self.problems),
            code=self.problems[0].code if count == 1 else "agentfile-invalid",
        )
