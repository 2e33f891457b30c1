"""`aos port`: which ports of the host lead to an agent."""

from __future__ import annotations

from aos.cli._options import OUTPUT, Verb
from aos.cli._output import print_json, wants_json
from aos.cli.network import of_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show the published ports of an agent, or the places that lead to one of them",
    "AGENT PORT?",
    options=(OUTPUT,),
)


def main(args: Arguments) -> int:
    """1 when PORT is asked for and is not published."""
    ports = [port for one in of_agent(args["agent"]) for port in one["ports"]]
    asked = args["port"]
    if asked is not None:
        wanted = asked if "/" in asked else f"{asked}/tcp"
        ports = [port for port in ports if f"{port['port']}/{port['protocol']}" == wanted]
    if wants_json(args):
        print_json(ports)
    for port in ports if not wants_json(args) else ():
        place = f"{port['address']}:{port['host']}"
        print(place if asked is not None else f"{port['port']}/{port['protocol']} -> {place}")
    return 0 if ports or asked is None else 1
