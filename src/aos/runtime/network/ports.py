"""Which ports of the host lead to a sandbox: those that are asked for, when they are free, or any that is."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from aos.errors import AlreadyExists, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.runtime.spec import Port

__all__ = ["choose_ports", "port_in_use"]

_ATTEMPTS = 100


def choose_ports(asked: Sequence[Port], taken: Sequence[Port]) -> tuple[Port, ...]:
    """With a port of the host for each. `taken`: those of other sandboxes.

    AlreadyExists `port-in-use`, also when a program of the host listens there, which would not be heard of again;
    InvalidArgument `port-invalid` for an address that is not the host's."""
    chosen: list[Port] = []
    for port in asked:
        chosen.append(_choose(port, [*taken, *chosen]))
    return tuple(chosen)


def _choose(port: Port, taken: Sequence[Port]) -> Port:
    if port.host:
        if any(_same(port, one) for one in taken):
            raise port_in_use(port, "another agent has it")
        if _bind(port) is None:
            raise port_in_use(port, "a program of this host listens there")
        return port
    for _ in range(_ATTEMPTS):
        number = _bind(port)
        found = replace(port, host=number or 0)
        if number and not any(_same(found, one) for one in taken):
            return found
    raise port_in_use(port, "none is free")


def _same(one: Port, other: Port) -> bool:
    same = (one.protocol, one.host) == (other.protocol, other.host)
    return same and (not one.address or not other.address or one.address == other.address)


def _bind(port: Port) -> int | None:
    """The port, or one that is free; None when somebody listens there."""
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as trial:
        if port.protocol == "tcp":  # connections that were there do not count
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((port.address, port.host))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return None
            if error.errno == errno.EADDRNOTAVAIL:
                raise InvalidArgument(
                    f"{port.address} is not an address of this host",
                    code="port-invalid",
                    hint="publish at one that `ip address` shows, or leave the address away for all of them",
                ) from error
            raise
        number: int = trial.getsockname()[1]
        return number


def port_in_use(port: Port, why: str) -> AlreadyExists:
    at = f"{port.address}:" if port.address else ""
    return AlreadyExists(
        f"port {at}{port.host or 'any'}/{port.protocol} of this host cannot be published: {why}",
        code="port-in-use",
        hint="choose another, or leave it away (`-p 80`) for one that is free; `aos network ls` shows who has which",
        port=port.host,
    )
