"""`aos pool`: sandboxes that are made before they are wanted, for runs that begin at once."""

from __future__ import annotations

from aos.cli import _node, _values
from aos.cli._each import each
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import clean, print_json, size, table, wants_json
from aos.cli.run import SANDBOX, sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERBS"]


def _set(args: Arguments) -> int:
    if args["size"] is None:
        from aos.errors import InvalidArgument

        raise InvalidArgument("how many is for --size to say", code="usage")
    wanted = _values.count(args["size"], "--size")
    print(_node.call("pool.set", run=sandbox(args), size=wanted, wait=args["wait"])["pool"])
    return 0


def _list(args: Arguments) -> int:
    found = _node.call("pool.list")
    if wants_json(args):
        print_json(found)
        return 0
    table(
        ("POOL", "PACKAGE", "COMMAND", "RUNTIME", "READY", "TAKEN", "MISSED", "MEMORY", "PIDS", "PROBLEM"),
        [
            (
                one["pool"],
                one["reference"],
                _short(" ".join(one["command"])) or "-",
                one["runtime"] or "-",
                f"{one['ready']}/{one['size']}",
                one["taken"],
                one["missed"],
                size(one["memory_bytes"]),
                one["pids"],
                one["problem"] or "-",
            )
            for one in found
        ],
    )
    return 0


def _remove(args: Arguments) -> int:
    def remove(pool: str) -> None:
        for name in _node.call("pool.remove", pool=pool)["pools"]:
            print(name)

    return each("pool rm", args["pool"], remove)


def _short(command: str) -> str:
    command = clean(command)
    return command if len(command) <= 24 else command[:23] + "…"


VERBS = {
    "set": (
        Verb(
            "Have sandboxes wait for `aos run` with the same reference, options and arguments",
            "REFERENCE ARGS...",
            options=(
                Option("size", "n", "N", "How many of them"),
                Option("wait", "", help="Return when all of them wait"),
                *SANDBOX,
            ),
            stop_at_first_positional=True,
        ),
        _set,
    ),
    "ls": (Verb("List the pools, what waits in them and what that takes", options=(OUTPUT,)), _list),
    "rm": (Verb("Remove pools, by name or by reference, with all that waits in them", "POOL+"), _remove),
}
