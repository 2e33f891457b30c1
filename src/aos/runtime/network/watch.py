"""What happens to the network of sandboxes while a node looks after it: somebody takes parts of its table away, and
sandboxes try what they may not.

Numbers are from include/uapi/linux/netfilter/{nfnetlink,nfnetlink_log}.h.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from aos.errors import AosError
from aos.runtime.network import nftables
from aos.runtime.network.netlink import ACK, Message, Netlink, NetlinkError, attribute, attributes, be32

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.runtime.network.bridge import BridgeNetwork

__all__ = ["Refusal", "Watch", "read_refusal"]

log = logging.getLogger("aosd")

_TABLES_GROUP = 7  # NFNLGRP_NFTABLES
_LOG, _LOG_PACKET, _LOG_CONFIG = 4, 0, 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}


@dataclass(frozen=True, slots=True)
class Refusal:
    sandbox: str
    protocol: str
    destination: str
    port: int | None


class Watch:
    """Runs on the loop that makes it; until `close`."""

    def __init__(self, network: BridgeNetwork, on_refused: Callable[[Refusal], None]) -> None:
        self._network = network
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._settling: asyncio.Task[None] | None = None
        self._again = False
        self._sockets: list[Netlink] = []
        self.listen()

    def listen(self) -> None:
        """Where the network is now: an ordinary user's may have been made anew."""
        self._close_sockets()
        network = self._network
        table, refusals = (
            lambda: nftables.open_netfilter(groups=[_TABLES_GROUP]),
            lambda: _open_log(network.group),
        )
        self._listen(lambda: network.call(table), self._table_changed)
        self._listen(lambda: network.call(refusals), self._refused)
        self._listen(network.open_addresses, self._addresses_changed)

    def _listen(self, make: Callable[[], Netlink | None], ready: Callable[[Netlink], None]) -> None:
        try:
            listener = make()
        except (OSError, AosError) as error:
            log.warning("the firewall cannot be watched: %s", error)
            return
        if listener is None:
            return
        listener.socket.setblocking(False)
        self._sockets.append(listener)
        self._loop.add_reader(listener.socket, ready, listener)

    def _table_changed(self, listener: Netlink) -> None:
        try:
            changed = any(
                type in nftables.TABLE_EVENTS
                and port != self._network.own_port()
                and nftables.table_of(body) == self._network.table_name
                for type, port, body in listener.events()
            )
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            changed = True  # what was lost may have been about us
        if changed:
            self.settle("somebody changed the firewall's table")

    def _addresses_changed(self, listener: Netlink) -> None:
        try:
            for _ in listener.events():
                pass
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
        self.settle("the host has other addresses")

    def settle(self, why: str) -> None:
        """Make table and bridge anew; when that is under way, once more after it."""
        if self._settling is not None and not self._settling.done():
            self._again = True
            return
        self._settling = asyncio.create_task(self._settle(why), name="settle the network")

    async def _settle(self, why: str) -> None:
        while True:
            self._again = False
            try:
                await asyncio.to_thread(self._network.settle)
                log.warning("%s: %s is restored", why, self._network.table_name)
            except AosError as error:
                log.error("%s, and it cannot be restored: %s", why, error)
            if not self._again:
                return

    def _refused(self, listener: Netlink) -> None:
        try:
            for type, _, body in listener.events():
                if type == _LOG << 8 | _LOG_PACKET and (refusal := read_refusal(body)) is not None:
                    self._on_refused(refusal)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise  # else: more than anybody would read

    def _close_sockets(self) -> None:
        for listener in self._sockets:
            self._loop.remove_reader(listener.socket)
            listener.close()
        self._sockets.clear()

    async def close(self) -> None:
        self._close_sockets()
        if self._settling is not None:
            await asyncio.wait([self._settling])


def _open_log(group: int) -> Netlink:
    listener = nftables.open_netfilter()
    head = struct.pack("!BBH", 0, 0, group)
    bind = attribute(_COMMAND, bytes((_BIND,)))
    mode = attribute(_MODE, struct.pack("!IBx", 64, _COPY_PACKET))
    config = _LOG << 8 | _LOG_CONFIG
    try:
        listener.tell(Message(config, ACK, head + bind))
        listener.tell(Message(config, ACK, head + mode + be32(_THRESHOLD, 1)))
    except NetlinkError:
        listener.close()
        raise
    return listener


def read_refusal(body: bytes) -> Refusal | None:
    """From a message of nfnetlink_log; None for a packet that is not of IPv4, or cut off."""
    values = attributes(body[4:])
    packet = values.get(_PAYLOAD, b"")
    sandbox = values.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
    if len(packet) < 20 or packet[0] >> 4 != 4 or not sandbox:
        return None
    header = (packet[0] & 15) * 4
    protocol = _PROTOCOLS.get(packet[9], str(packet[9]))
    port = None
    if protocol in ("tcp", "udp") and len(packet) >= header + 4:
        port = struct.unpack_from("!H", packet, header + 2)[0]
    return Refusal(sandbox, protocol, str(IPv4Address(packet[16:20])), port)
