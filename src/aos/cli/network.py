"""`aos network`: how agents are connected, and what they may reach."""

from __future__ import annotations

from aos.cli import _node
from aos.cli._each import each
from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import clean, print_json, table, wants_json
from aos.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._options import Arguments

__all__ = ["VERBS", "of_agent", "port_text"]


def _list(args: Arguments) -> int:
    found = _node.call("network.list")
    if wants_json(args):
        print_json(found)
        return 0
    used, capacity = len(found["sandboxes"]), found["capacity"]
    print(f"bridge {found['bridge']}, {found['pool']}: {used} of {capacity} addresses in use")
    if found["sandboxes"]:
        print()
    table(
        ("AGENT", "ADDRESS", "PORTS", "UP", "DOWN"),
        [
            (
                clean(one["name"] or "(build)"),
                one["address"],
                ", ".join(map(port_text, one["ports"])) or "-",
                _rate(one["bandwidth"]["up"]),
                _rate(one["bandwidth"]["down"]),
            )
            for one in found["sandboxes"]
        ],
    )
    return 0


def _inspect(args: Arguments) -> int:
    found: list[object] = []
    code = each("network inspect", args["agent"], lambda agent: found.extend(of_agent(agent)))
    print_json(found)
    return code


def _rules(args: Arguments) -> int:
    for number, one in enumerate(of_agent(args["agent"])):
        if number:
            print()
        for rule in one["rules"]:
            print(rule)
        print("deny any")
    return 0


def of_agent(agent: str) -> list[dict[str, Any]]:
    """The connections of an agent's processes. FailedPrecondition `network-none` when there are none."""
    id = _node.call("agent.inspect", agent=agent)["agent"]
    found = [one for one in _node.call("network.list")["sandboxes"] if one["agent"] == id]
    if not found:
        raise FailedPrecondition(
            f"agent {agent} has no connection of its own now",
            code="network-none",
            hint="agents with `--network bridge` have one while they run",
            agent=id,
        )
    return found


def port_text(port: dict[str, Any]) -> str:
    return f"{port['address']}:{port['host']}->{port['port']}/{port['protocol']}"


def _rate(bits: int | None) -> str:
    if bits is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if bits >= size:
            return f"{bits / size:g}{unit}bit/s"
    return f"{bits}bit/s"


VERBS = {
    "ls": (Verb("List the addresses and published ports of agents", options=(OUTPUT,)), _list),
    "inspect": (
        Verb(
            "Show how agents are connected, as one JSON array",
            "AGENT+",
            options=(Option("output", "o", "FORMAT", "json", default="json", choices=("json",)),),
        ),
        _inspect,
    ),
    "rules": (Verb("Show what an agent may reach: the first rule that matches decides", "AGENT"), _rules),
}
