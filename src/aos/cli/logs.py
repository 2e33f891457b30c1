"""`aos logs`: what an agent has written."""

from __future__ import annotations

import posix

from aos.cli import _node
from aos.cli._log import Printer, start_of_tail
from aos.cli._options import Option, Verb
from aos.cli._streams import write_all
from aos.cli._values import parse_moment
from aos.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "follow", "main"]

VERB = Verb(
    "Show what an agent has written: its standard output on ours, its standard error on ours",
    "AGENT",
    options=(
        Option("follow", "f", help="Go on until the agent has finished"),
        Option("since", "", "TIME", "Only from then on: 2026-01-31T12:00:00Z, or how long ago: 10m"),
        Option("tail", "n", "LINES", "Only the last lines", default="all"),
        Option("timestamps", "t", help="Put the time before each line"),
    ),
)

_BLOCK = 1 << 18
_TICK = 100
"""Milliseconds between looks at a log that is followed."""


def main(args: Arguments) -> int:
    tail = args["tail"]
    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise InvalidArgument(f"--tail must be a number of lines or all, not {tail!r}", code="usage")
    since = parse_moment(args["since"], "--since") if args["since"] is not None else None
    printer = Printer(write_all, since=since, timestamps=args["timestamps"])
    agent = args["agent"]
    with _node.connect() as node:
        _, descriptors = node.call_with_descriptors("agent.logs", agent=agent)
        log = descriptors[0]
        posix.lseek(log, 0 if tail == "all" else start_of_tail(log, int(tail)), 0)
        if args["follow"]:
            answer = _node.Answer(node, "agent.wait", agent=agent)
            follow(log, printer, answer)
            answer.result()
        else:
            _drain(log, printer)
    return 0


def follow(log: int, printer: Printer, answer: _node.Answer) -> None:
    """Print a log, from where the descriptor stands, until the agent has finished."""
    import select

    while not answer.known:
        if _drain(log, printer):
            continue
        poll = select.poll()
        poll.register(answer.descriptor, select.POLLIN)
        if poll.poll(_TICK):
            answer.advance()
    _drain(log, printer)


def _drain(log: int, printer: Printer) -> bool:
    """Print what there is; tell whether there was anything."""
    some = False
    while data := posix.read(log, _BLOCK):
        printer.feed(data)
        some = True
    return some
