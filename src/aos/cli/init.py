"""`aos init`: write a good start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.cli._options import Option, Verb

if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Write an Agentfile and a small Python agent to start from",
    "DIRECTORY?",
    options=(Option("name", "", "NAME", "The package's name (default: the directory's)"),),
)


def main(args: Arguments) -> int:
    import re
    from pathlib import Path

    from aos.compose.agentfiles import agentfile_start
    from aos.errors import AlreadyExists

    directory = Path(args["directory"] or ".")
    name = args["name"] or re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-") or "agent"
    files, reference = agentfile_start(name)
    directory.mkdir(parents=True, exist_ok=True)
    present = [name for name in files if (directory / name).exists()]
    if present:
        raise AlreadyExists(
            f"{directory / present[0]} exists",
            code="file-exists",
            hint="nothing was written; choose another directory, or move it away",
            path=str(directory / present[0]),
        )
    for name, text in files.items():
        with (directory / name).open("x", encoding="utf-8") as file:
            file.write(text)
        print(f"wrote {directory / name}")
    where = "" if directory == Path() else f" {directory}"
    print(f"\nnext: aos build{where} && aos run {reference}")
    return 0
