"""`aos logs`: what an agent has written."""

from __future__ import annotations

import posix

from aos.cli import _node
from aos.cli._log import Printer, start_of_tail
from aos.cli._options import Option, Verb
from aos.cli._streams import write_all
from aos.cli._values import count, parse_moment
from aos.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.cli._options import Arguments

__all__ = ["VERB", "follow", "main", "open_logs"]

VERB = Verb(
    "Show what an agent has written: its standard output on ours, its standard error on ours",
    "AGENT",
    options=(
        Option("follow", "f", help="Go on until the agent has finished"),
        Option("since", "", "TIME", "Only from then on: 2026-01-31T12:00:00Z, or how long ago: 10m"),
        Option("tail", "n", "LINES", "Only the last lines", default="all"),
        Option("timestamps", "t", help="Put the time before each line"),
        Option(
            "replica", "", "NUMBER", "Only what this replica has written (default: all, each line numbered)"
        ),
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
    agent = args["agent"]
    chosen = count(args["replica"], "--replica") if args["replica"] is not None else None
    with _node.connect() as node:
        logs = open_logs(node, agent, chosen, since=since, timestamps=args["timestamps"])
        for log, _ in logs:
            posix.lseek(log, 0 if tail == "all" else start_of_tail(log, int(tail)), 0)
        if args["follow"]:
            answer = _node.Answer(node, "agent.wait", agent=agent)
            follow(logs, answer)
            answer.result()
        elif len(logs) == 1:
            _drain(*logs[0])
        else:
            _merge(logs)
    return 0


def open_logs(
    node: _node.Connection,
    agent: str,
    chosen: int | None = None,
    *,
    since: float | None = None,
    timestamps: bool = False,
) -> list[tuple[int, Printer]]:
    """Descriptors of an agent's logs, one for each replica or for the chosen one (from 1), each with what prints it."""
    found, number = [], chosen or 1
    while True:
        facts, descriptors = node.call_with_descriptors("agent.logs", agent=agent, replica=number - 1)
        prefix = b"%d| " % number if chosen is None and facts["replicas"] > 1 else b""
        printer = Printer(write_all, since=since, timestamps=timestamps, prefix=prefix)
        if facts.get("redact"):
            from base64 import b64decode

            from aos.redaction import Redaction

            printer.redact = Redaction(map(b64decode, facts["redact"]))
        found.append((descriptors[0], printer))
        number += 1
        if chosen is not None or number > facts["replicas"]:
            return found


def follow(logs: list[tuple[int, Printer]], answer: _node.Answer) -> None:
    """Print logs, from where their descriptors stand, until the agent has finished."""
    import select

    while not answer.known:
        if sum(_drain(log, printer) for log, printer in logs):
            continue
        poll = select.poll()
        poll.register(answer.descriptor, select.POLLIN)
        if poll.poll(_TICK):
            answer.advance()
    for log, printer in logs:
        _drain(log, printer)


def _drain(log: int, printer: Printer) -> bool:
    """Print what there is; tell whether there was anything."""
    some = False
    while data := posix.read(log, _BLOCK):
        printer.feed(data)
        some = True
    return some


def _merge(logs: list[tuple[int, Printer]]) -> None:
    """Print several logs as one, in the order of their times: all are written in one notation, which sorts."""
    import heapq

    def records(log: int, printer: Printer) -> Iterator[tuple[bytes, bytes, Printer]]:
        rest = b""
        while data := posix.read(log, _BLOCK):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.partition(b" ")[0], line, printer

    for _, line, printer in heapq.merge(*(records(*one) for one in logs), key=lambda record: record[0]):
        printer.feed(line + b"\n")
