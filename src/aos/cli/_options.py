"""Declared options: what a verb takes, the parser of it, and the values that come out.

Docker's habits: `-it` bundles, `-fNAME`, `--name VALUE`, `--name=VALUE`, `--` ends the options. Help is in
`_help`, imported only when it is shown. On the path of every command: builtins only.
"""

from __future__ import annotations

from aos.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

__all__ = ["BUILD_ARG", "LENT", "OUTPUT", "Arguments", "Option", "Verb", "nearest", "parse"]


class Option:
    """One option. Without a `metavar` it is a flag; `repeat` collects its values in a list.

    `implied` is the value of the option alone: `--plan` says `--plan=text`; another value needs the equals sign,
    unless the option may be repeated: then the next word is its value, if there is one.
    """

    __slots__ = ("choices", "default", "help", "implied", "long", "metavar", "repeat", "short")

    def __init__(
        self,
        long: str,
        short: str = "",
        metavar: str = "",
        help: str = "",
        repeat: bool = False,
        default: str | None = None,
        choices: Sequence[str] = (),
        implied: str | None = None,
    ) -> None:
        self.long = long.lstrip("-")
        self.short = short.lstrip("-")
        self.metavar = metavar
        self.help = help
        self.repeat = repeat
        self.default = default
        self.choices = choices
        self.implied = implied

    def __str__(self) -> str:
        return f"--{self.long}"


class Verb:
    """What a verb is for and what it takes.

    `positionals` are words: `NAME` required, `NAME?` optional, `NAME+` one or more, `NAME...` the rest, maybe
    none; the last two only at the end. `stop_at_first_positional`: everything after the first positional belongs
    to somebody else's command line.
    """

    __slots__ = ("options", "positionals", "stop_at_first_positional", "summary")

    def __init__(
        self,
        summary: str,
        positionals: str = "",
        options: Iterable[Option] = (),
        stop_at_first_positional: bool = False,
    ) -> None:
        self.summary = summary
        self.positionals = positionals
        self.options = tuple(options)
        self.stop_at_first_positional = stop_at_first_positional


OUTPUT = Option("output", "o", "FORMAT", "table or json", default="table", choices=("table", "json"))
"""For verbs that list or show something."""

BUILD_ARG = Option(
    "build-arg", "", "NAME=VALUE", "Value of a build argument; NAME alone: from the environment", repeat=True
)
"""For verbs that read an Agentfile."""

LENT = (
    Option("secret", "", "SECRET", "id=NAME,src=FILE or id=NAME,env=VARIABLE, for steps", repeat=True),
    Option("ssh", "", "AGENT", "default, or ID=SOCKET, or ID=KEYFILE: an SSH agent for steps", repeat=True),
)
"""For verbs that execute steps: what these may use and nothing keeps."""

_EVERYWHERE = (
    Option("help", "h", help="Show this help"),
    Option("debug", help="Show where an error came from"),
)


class Arguments(dict[str, "Any"]):
    """Values by long option name and by lower-case positional name.

    A flag is a bool, a repeated option and the rest of the positionals a list of str, all else str or None.
    """


def parse(verb: Verb, argv: Sequence[str]) -> Arguments:
    """Read a verb's command line. Raises InvalidArgument `usage` and names the nearest option."""
    options = verb.options + _EVERYWHERE
    by_name = {f"--{option.long}": option for option in options}
    by_name |= {f"-{option.short}": option for option in options if option.short}
    values = Arguments()
    for option in options:
        values[option.long] = [] if option.repeat else option.default if option.metavar else False
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word == "-" or not word.startswith("-"):
            words.append(word)
            if verb.stop_at_first_positional:
                words += rest
                break
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            found = _find(by_name, name)
            if found.metavar:
                _set(values, found, name, value if equals else _next(found, name, rest))
            elif not equals or value in ("true", "false"):
                values[found.long] = value != "false"
            else:
                raise _usage(f"option {name} is a flag and takes no value, not {value!r}")
        else:
            _bundle(values, by_name, word, rest)
    if not values["help"]:
        _positionals(verb, words, values)
    return values


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` probably meant, or an empty string.

    Damerau-Levenshtein distance (optimal string alignment), at most a third of the word, or a common start.
    """
    best, limit = "", max(1, len(word) // 3) + 1
    for candidate in known:
        distance = _distance(word, candidate)
        if distance < limit:
            best, limit = candidate, distance
    if not best and len(word) >= 2:
        best = next((candidate for candidate in known if candidate.startswith(word)), "")
    return best


def _bundle(values: Arguments, by_name: dict[str, Option], word: str, rest: list[str]) -> None:
    """Read `-it`, `-n5`, `-n=5`, `-n 5`."""
    letters = word[1:]
    while letters:
        name, letters = "-" + letters[0], letters[1:]
        option = by_name.get(name)
        if option is None:
            raise _unknown(by_name, name, word)
        if option.metavar:
            _set(values, option, name, letters.removeprefix("=") if letters else _next(option, name, rest))
            return
        values[option.long] = True


def _find(by_name: dict[str, Option], name: str) -> Option:
    if name in by_name:
        return by_name[name]
    raise _unknown(by_name, name, name)


def _unknown(by_name: dict[str, Option], name: str, word: str) -> InvalidArgument:
    inside = "" if name == word else f" in {word}"
    guess = nearest(name if name.startswith("--") else f"-{word}", by_name) if len(word) > 2 else ""
    return _usage(f"unknown option {name}{inside}", f"did you mean {guess}?" if guess else None)


def _next(option: Option, name: str, rest: list[str]) -> str:
    if option.implied and (not option.repeat or not rest or rest[0].startswith("-")):
        return option.implied
    if not rest:
        raise _usage(f"option {name} needs a value: {name} {option.metavar}")
    return rest.pop(0)


def _set(values: Arguments, option: Option, name: str, value: str) -> None:
    if option.choices and value not in option.choices:
        guess = nearest(value, option.choices)
        raise _usage(
            f"option {name} must be {' or '.join(option.choices)}, not {value!r}",
            f"did you mean {guess}?" if guess else None,
        )
    if option.repeat:
        values[option.long].append(value)
    else:
        values[option.long] = value


def _positionals(verb: Verb, words: list[str], values: Arguments) -> None:
    for pattern in verb.positionals.split():
        name = pattern.rstrip("?+.").lower()
        if pattern.endswith(("...", "+")):
            if not words and pattern.endswith("+"):
                raise _usage(f"{name.upper()} is missing")
            values[name], words = list(words), []
        elif words:
            values[name] = words.pop(0)
        elif pattern.endswith("?"):
            values[name] = None
        else:
            raise _usage(f"{name.upper()} is missing")
    if words:
        raise _usage(f"unexpected argument {words[0]!r}")


def _usage(message: str, hint: str | None = None) -> InvalidArgument:
    return InvalidArgument(message, code="usage", hint=hint)


def _distance(a: str, b: str) -> int:
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, right in enumerate(b, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
