"""`aos events`: what happened on the node."""

from __future__ import annotations

import time

from aos.cli import _node
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import clean, wants_json
from aos.cli._values import parse_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show what happened on the node",
    options=(
        Option(
            "since",
            "",
            "WHEN",
            "Only after this cursor (a number that -o json shows), time, or time ago: 10m",
        ),
        Option("follow", "f", help="Go on with what happens next"),
        OUTPUT,
    ),
)


def main(args: Arguments) -> int:
    since = args["since"]
    params: dict[str, Any] = {"follow": args["follow"]}
    earliest = 0.0
    if since is not None and since.isascii() and since.isdigit() and int(since) < 100_000_000:
        params["since"] = int(since)
    elif since is not None:
        earliest = parse_moment(since, "--since")
    json = wants_json(args)
    with _node.connect() as node:
        for event in node.watch("events.watch", **params):
            if event["at"] >= earliest:
                print(_as_json(event) if json else _as_text(event), flush=args["follow"])
    return 0


def _as_json(event: dict[str, Any]) -> str:
    import json

    return json.dumps(event, ensure_ascii=False)


def _as_text(event: dict[str, Any]) -> str:
    whole = time.gmtime(event["at"])
    at = time.strftime("%Y-%m-%dT%H:%M:%S", whole) + f".{int(event['at'] % 1 * 1000):03d}Z"
    words = [at, event["type"]]
    words += [event["agent"]] if event.get("agent") else []
    words += [f"pid={event['pid']}"] if event.get("pid") else []
    data = dict(event.get("data") or {})
    ended = data.pop("exit", None) or {}
    data |= {key: ended[key] for key in ("cause", "code", "signal", "detail") if key in ended}
    words += [f"{key}={value}" for key, value in data.items() if _plain(value)]
    return clean(" ".join(map(str, words)))


def _plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and value != ""
