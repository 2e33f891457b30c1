"""`network`: the mode of an agent's network, and for `bridge` what it may reach, listens on, and how fast it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aos.agentfile.definition import Bandwidth, Network, NetworkMode
from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode
from aos.errors import AosError
from aos.runtime.network.rules import parse_egress, parse_port, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Walk

__all__ = ["read_network"]

_MODES = ("none", "bridge", "host")
_BRIDGE_ONLY = ("egress", "ports", "bandwidth")


def read_network(walk: Walk, node: Node) -> NetworkMode | Network:
    """The mode alone where nothing else is said."""
    if not isinstance(node, MappingNode):
        return cast("NetworkMode", walk.choice(node, "network", _MODES) or "none")
    fields = walk.mapping(node, "network", ("mode", *_BRIDGE_ONLY)) or {}
    further = [name for name in _BRIDGE_ONLY if name in fields]
    mode = walk.choice(fields["mode"], "network.mode", _MODES) if "mode" in fields else None
    if mode is None:
        mode = "bridge" if further else "none"
    if mode != "bridge":
        for name in further:
            walk.note(fields[name], f"network.{name} is for `mode: bridge`, not for {mode}")
        return cast("NetworkMode", mode)
    if not further:
        return "bridge"
    return Network(
        "bridge",
        _egress(walk, fields["egress"]) if "egress" in fields else None,
        _ports(walk, fields["ports"]) if "ports" in fields else (),
        _bandwidth(walk, fields["bandwidth"]) if "bandwidth" in fields else Bandwidth(),
    )


def _egress(walk: Walk, node: Node) -> tuple[str, ...]:
    words: list[tuple[Node, str | None]]
    if isinstance(node, ScalarNode):
        words = [(node, walk.choice(node, "network.egress", ("internet", "none")))]
    else:
        words = [
            (item, walk.string(item, "a rule", empty=False)) for item in walk.items(node, "network.egress")
        ]
    found = tuple(text for _, text in words if text is not None)
    if found not in (("internet",), ("none",)):
        for item, text in words:
            if text is not None:
                _parsed(walk, item, text, lambda word: parse_egress([word, "deny any"]))
    return found or ("none",)


def _ports(walk: Walk, node: Node) -> tuple[str, ...]:
    """What it listens on; which port of a host leads there is for whoever runs it to say."""
    found = []
    for item in walk.items(node, "network.ports"):
        if isinstance(item, SequenceNode | MappingNode):
            walk.note(item, "a port must be a number, or a text such as 53/udp")
            continue
        text = str(item.value)
        if ":" in text:
            walk.note(
                item,
                f"network.ports: {text!r:.60} names a port of the host",
                hint="name the port that the agent listens on; `aos run -p` publishes it",
            )
        elif _parsed(walk, item, text, parse_port) is not None:
            found.append(text)
    return tuple(found)


def _bandwidth(walk: Walk, node: Node) -> Bandwidth:
    fields = walk.mapping(node, "network.bandwidth", ("up", "down")) or {}
    rates: dict[str, str] = {}
    for name, item in fields.items():
        text = str(item.value) if isinstance(item, ScalarNode) else ""
        if _parsed(walk, item, text, parse_rate) is not None:
            rates[name] = text
    return Bandwidth(**rates)


def _parsed(walk: Walk, node: Node, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except AosError as error:
        walk.note(node, error.message, code=error.code, hint=error.hint or "")
        return None
