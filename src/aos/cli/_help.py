"""Help, generated from what verbs declare."""

from __future__ import annotations

from aos.cli._options import Option, Verb
from aos.cli._output import colour, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["show_all", "show_group", "show_verb"]


def show_all() -> int:
    """Print the help of `aos` itself: every verb, grouped by purpose."""
    from aos.cli.main import GROUPS

    print("Usage: aos [--debug] VERB [OPTIONS] [ARGUMENTS]\n\nBuild, share and run AI agents.")
    gap = max(len(name) for _, verbs in GROUPS for name in verbs) + 2
    for title, verbs in GROUPS:
        print(f"\n{colour(title + ':', 'bold')}")
        for name, summary in verbs.items():
            _row(name, gap, summary)
    print("\naos VERB --help tells more about a verb.")
    return 0


def show_group(name: str, group: Mapping[str, tuple[Verb, Any]]) -> int:
    from aos.cli.main import SUMMARIES

    print(f"Usage: aos {name} {'[VERB]' if '' in group else 'VERB'}\n\n{SUMMARIES[name]}.")
    if "" in group:
        print(f"\nWithout a verb: {group[''][0].summary}.")
    print(f"\n{colour('Verbs:', 'bold')}")
    gap = max(map(len, group)) + 2
    for word, (verb, _) in group.items():
        if word:
            _row(word, gap, verb.summary)
    return 0


def show_verb(name: str, verb: Verb) -> int:
    print(f"Usage: aos {name}{' [OPTIONS]' * bool(verb.options)}{_positionals(verb)}\n")
    for line in _wrapped(verb.summary.rstrip(".") + ".", width()):
        print(line)
    options = [
        *verb.options,
        Option("help", "h", help="Show this help"),
        Option("debug", help="Show where an error came from"),
    ]
    print(f"\n{colour('Options:', 'bold')}")
    left = [
        (f"-{option.short}, " if option.short else "    ")
        + f"--{option.long}"
        + (f"[={option.metavar}]" if option.implied else f" {option.metavar}")
        for option in options
    ]
    gap = min(max(map(len, left)), 28) + 2
    for words, option in zip(left, options, strict=True):
        notes = [f"default {option.default}"] if option.default else []
        notes += ["may be repeated"] if option.repeat else []
        _row(words.rstrip(), gap, option.help + (f" ({', '.join(notes)})" if notes else ""))
    return 0


def _positionals(verb: Verb) -> str:
    text = ""
    for pattern in verb.positionals.split():
        name = pattern.rstrip("?+.")
        if pattern.endswith("..."):
            text += f" [{name}...]"
        elif pattern.endswith("+"):
            text += f" {name} [{name}...]"
        else:
            text += f" [{name}]" if pattern.endswith("?") else f" {name}"
    return text


def _row(left: str, gap: int, right: str) -> None:
    lines = _wrapped(right, max(20, width() - gap - 2))
    if len(left) + 2 > gap:
        print(f"  {left}")
        left = ""
    for line in lines or [""]:
        print(f"  {left:{gap}}{line}".rstrip())
        left = ""


def _wrapped(text: str, columns: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > columns:
            lines.append("")
        lines[-1] += " " * bool(lines[-1]) + word
    return lines
