"""`aos runtimes`: what can isolate agents on this host, and which one `--runtime auto` takes."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._options import OUTPUT, Verb
from aos.cli._output import clean, colour, print_json, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("List what isolates agents: versions, capabilities, and which one auto takes", options=(OUTPUT,))


def main(args: Arguments) -> int:
    found = _node.call("runtime.info")
    if wants_json(args):
        print_json(found)
        return 0
    table(
        ("RUNTIME", "USABLE", "ISOLATION", "VERSION", "CAPABILITIES"),
        [
            (
                one["name"] + (" (default)" if one["default"] else ""),
                "yes" if one["usable"] else "no",
                one["isolation"] or "-",
                one["version"] or "-",
                ", ".join(one["capabilities"]) or "-",
            )
            for one in found
        ],
    )
    print()
    for one in found:
        for name, value in one["detail"].items():
            print(f"{one['name']}: {name}: {clean(value)}")
        if not one["usable"]:
            print(f"{one['name']}: {colour('not usable', 'yellow')}: {clean(one['problem'])}")
            if one["hint"]:
                print(f"{' ' * len(one['name'])}  {colour('hint:', 'cyan')} {clean(one['hint'])}")
    chosen = [f"{one['name']}: {one['auto']}" for one in found if one["auto"]]
    print(f"auto takes {chosen[0]}" if chosen else "auto takes none: see above")
    return 0
