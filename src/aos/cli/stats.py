"""`aos stats`: what agents use."""

from __future__ import annotations

import posix
import time

from aos.cli import _node
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import print_json, size, table, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show what running agents use, again every second on a terminal",
    "AGENT...",
    options=(Option("no-stream", help="Show it once"), OUTPUT),
)

_GLANCE = 0.2
"""Seconds between the two looks that a CPU percentage takes."""


def main(args: Arguments) -> int:
    once = args["no-stream"] or not posix.isatty(1)
    with _node.connect() as node:
        agents = {"agents": args["agent"]} if args["agent"] else {}
        if wants_json(args):
            print_json(node.call("agent.stats", **agents))
            return 0
        before, at = node.call("agent.stats", **agents), time.monotonic()
        pause = _GLANCE
        while True:
            time.sleep(pause)
            now, then = node.call("agent.stats", **agents), at
            at = time.monotonic()
            if not once:
                print("\x1b[H\x1b[J", end="")
            _show(now, {one["agent"]: one["usage"] for one in before}, at - then)
            if once:
                return 0
            before, pause = now, 1.0


def _show(stats: list[dict[str, Any]], before: dict[str, dict[str, Any]], seconds: float) -> None:
    table(
        ("AGENT ID", "NAME", "CPU %", "CPU TIME", "MEMORY", "PEAK", "PIDS", "READ", "WRITTEN"),
        [
            (
                one["agent"],
                one["name"],
                _percent(one["usage"], before.get(one["agent"]), seconds),
                _or_dash(one["usage"].get("cpu_seconds"), "{:.2f} s"),
                size(one["usage"].get("memory_bytes")),
                size(one["usage"].get("memory_peak_bytes")),
                _or_dash(one["usage"].get("pids"), "{}"),
                size(one["usage"].get("read_bytes")),
                size(one["usage"].get("written_bytes")),
            )
            for one in stats
        ],
    )


def _percent(usage: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> str:
    if not before or usage.get("cpu_seconds") is None or before.get("cpu_seconds") is None:
        return "-"
    return f"{max(0.0, usage['cpu_seconds'] - before['cpu_seconds']) / seconds:.1%}"


def _or_dash(value: object, form: str) -> str:
    return "-" if value is None else form.format(value)
