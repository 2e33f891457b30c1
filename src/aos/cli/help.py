"""`aos help`: the same as `--help`."""

from __future__ import annotations

from aos.cli._options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("Show help about a verb", "VERB...", stop_at_first_positional=True)


def main(args: Arguments) -> int:
    from aos.cli._help import show_all, show_group, show_verb
    from aos.cli.main import find, load

    words: list[str] = args["verb"]
    if not words:
        return show_all()
    if len(words) == 1:
        name = words[0]
        find_group = getattr(load(name), "VERBS", None) if name in _known() else None
        if find_group is not None:
            return show_group(name, find_group)
    name, verb, _, _ = find(words)
    return show_verb(name, verb)


def _known() -> frozenset[str]:
    from aos.cli.main import SUMMARIES

    return frozenset(SUMMARIES)
