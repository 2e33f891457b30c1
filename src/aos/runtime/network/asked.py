"""The network of an agent: what its package says, changed by what whoever starts it asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from aos.errors import InvalidArgument
from aos.runtime.network.rules import parse_egress, parse_port, parse_rate
from aos.runtime.spec import INTERNET, Bandwidth, NetworkMode, NetworkSpec, Port

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["NetworkWords", "network_spec"]


@dataclass(frozen=True, slots=True)
class NetworkWords:
    """As a command line has them; None and empty: as the package says."""

    mode: str | None = None
    """none, bridge, host or agent:NAME."""
    egress: tuple[str, ...] | None = None
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    """Every port that the package names, at a free port of the host."""


def network_spec(
    package: str | Mapping[str, Any] | None, exposed: Iterable[str], words: NetworkWords
) -> NetworkSpec:
    """`package`: the mode, or the definition's mapping; `exposed`: ports of the image's configuration.

    `-p`, `-P` and `--egress` say bridge when nothing else is said. InvalidArgument `network-unknown`,
    `network-conflict`, and what the parsers of rules.py raise."""
    said: dict[str, Any] = {"mode": package} if isinstance(package, str) else dict(package or {})
    asks_for_bridge = bool(words.publish or words.publish_all or words.egress)
    text = words.mode or said.get("mode") or "none"
    if asks_for_bridge and words.mode is None and text == "none":
        text = "bridge"
    mode, _, name = text.partition(":")
    if mode not in get_args(NetworkMode) or (mode == "agent") != bool(name):
        raise InvalidArgument(
            f"no network mode {text[:60]!r}",
            code="network-unknown",
            hint="none (loopback only), bridge, host, agent:NAME (that of another agent)",
            network=text,
        )
    if mode != "bridge":
        if asks_for_bridge:
            raise InvalidArgument(
                f"ports and egress rules are for the network mode bridge, not for {mode}",
                code="network-conflict",
                hint="leave --network away, or say --network bridge",
            )
        return NetworkSpec(cast("NetworkMode", mode), sandbox=name)
    ports = [*map(parse_port, words.publish)]
    if words.publish_all:
        for text in (*said.get("ports", ()), *exposed):
            port = parse_port(str(text))
            if not any((one.inside, one.protocol) == (port.inside, port.protocol) for one in ports):
                ports.append(Port(port.inside, port.protocol))
    bandwidth = said.get("bandwidth") or {}
    egress = words.egress if words.egress is not None else said.get("egress")
    return NetworkSpec(
        "bridge",
        egress=INTERNET if egress is None else parse_egress(egress),
        ports=tuple(ports),
        bandwidth=Bandwidth(*(_rate(bandwidth.get(way)) for way in ("up", "down"))),
    )


def _rate(text: str | None) -> int | None:
    return None if text is None else parse_rate(text)
