"""A world for one test: a host with a network of its own, and what is outside of it, in network namespaces.

    inner host      where the daemon and its sandboxes live; nothing of the real host's network is touched
    the outside     behind the host's default route: 203.0.113.9 on the internet, 10.1.2.3 and 192.168.7.7 in private
                    networks, 169.254.169.254 the metadata service of a cloud, 100.64.0.53 a resolver

Each address of the outside answers on TCP ports 80 and 81 and on UDP port 53 with who asked.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from fix_installation import Installation, new_installation, requires, requires_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["METADATA", "PRIVATE", "PUBLIC", "World", "in_namespace"]

PUBLIC, PUBLIC_OTHER = "203.0.113.9", "198.51.100.7"
PRIVATE, PRIVATE_OTHER = "10.1.2.3", "192.168.7.7"
METADATA = "169.254.169.254"
HOST, GATEWAY = "192.0.2.10", "192.0.2.1"
ADDRESSES = (PUBLIC, PUBLIC_OTHER, PRIVATE, PRIVATE_OTHER, METADATA)
TCP_PORTS, UDP_PORT = (80, 81), 53
_T = TypeVar("_T")


def in_namespace(path: str, work: Callable[[], _T]) -> _T:
    """Do it in a thread that enters the network namespace; sockets that it makes stay there."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with Path(path).open() as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) != 0:
                    raise OSError(ctypes.get_errno(), path)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _Answering:
    """Servers of the outside, all in one thread; `heard` counts who was reached."""

    def __init__(self, namespace: str) -> None:
        self.heard: list[tuple[str, int, str]] = []
        """(address, port, who)"""
        self._stop, self._stopping = os.pipe()
        self._sockets = in_namespace(namespace, self._open)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _open(self) -> dict[socket.socket, tuple[str, int]]:
        found = {}
        for address in ADDRESSES:
            for port in TCP_PORTS:
                tcp = socket.create_server((address, port), backlog=256)
                found[tcp] = (address, port)
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((address, UDP_PORT))
            found[udp] = (address, UDP_PORT)
        return found

    def _serve(self) -> None:
        while True:
            ready = select.select([self._stop, *(one.fileno() for one in self._sockets)], [], [])[0]
            if self._stop in ready:
                return
            for one in [one for one in self._sockets if one.fileno() in ready]:
                address, port = self._sockets[one]
                if port == UDP_PORT:
                    data, peer = one.recvfrom(1500)
                    one.sendto(b"answer " + data, peer)
                else:
                    connection, peer = one.accept()
                    with connection:
                        connection.sendall(f"you are {peer[0]}\n".encode())
                self.heard.append((address, port, peer[0]))

    def close(self) -> None:
        os.write(self._stopping, b"x")
        self._thread.join()
        for one in self._sockets:
            one.close()
        os.close(self._stop)
        os.close(self._stopping)


@dataclass(slots=True)
class World:
    """`installation` runs on the inner host."""

    installation: Installation
    host: str
    """Name of the inner host's namespace, for `ip netns`."""
    outside: str
    answering: _Answering = field(repr=False)
    others: list[Installation] = field(default_factory=list)

    def on_host(self, *words: str) -> str:
        """Run a program on the inner host; its output."""
        return _run("nsenter", f"--net=/run/netns/{self.host}", *words)

    def on_the_host(self, work: Callable[[], _T]) -> _T:
        return in_namespace(f"/run/netns/{self.host}", work)

    def from_outside(self, work: Callable[[], _T]) -> _T:
        return in_namespace(f"/run/netns/{self.outside}", work)

    @property
    def table(self) -> str:
        return self.installation.config.installation.replace("-", "_")


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def world(busybox_root: Path, tmp_path: Path) -> Iterator[World]:
    requires_root()
    requires("ip", "nsenter", "nft")
    suffix = f"{os.getpid()}"
    host, outside = f"test-h{suffix}", f"test-o{suffix}"
    made: list[Installation] = []
    answering: _Answering | None = None
    _run("ip", "netns", "add", host)
    _run("ip", "netns", "add", outside)
    try:
        _run("ip", "-n", host, "link", "set", "lo", "up")
        _run("ip", "-n", outside, "link", "set", "lo", "up")
        _run(
            "ip", "-n", host, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", outside
        )
        _run("ip", "-n", host, "address", "add", f"{HOST}/24", "dev", "up0")
        _run("ip", "-n", outside, "address", "add", f"{GATEWAY}/24", "dev", "down0")
        for address in ADDRESSES:
            _run("ip", "-n", outside, "address", "add", f"{address}/32", "dev", "lo")
        _run("ip", "-n", host, "link", "set", "up0", "up")
        _run("ip", "-n", outside, "link", "set", "down0", "up")
        _run("ip", "-n", host, "route", "add", "default", "via", GATEWAY)
        answering = _Answering(f"/run/netns/{outside}")
        installation = on_inner_host(new_installation(), host, busybox_root)
        made.append(installation)
        world = World(installation, host, outside, answering)
        yield world
        made += world.others
        for one in made:
            one.end()
        left = world.on_host("nft", "list", "tables") + world.on_host("ip", "-o", "link")
        assert not [line for line in left.splitlines() if "aos" in line], left
    finally:
        if answering is not None:
            answering.close()
        for name in (host, outside):
            subprocess.run(["ip", "netns", "delete", name], check=False)
        for one in made:
            shutil.rmtree(one.root.parent, ignore_errors=True)


class _OnHost(Installation):
    """An installation whose commands, and so its daemon, run on the inner host."""

    __slots__ = ()

    def command(self, *words: str | os.PathLike[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.environ['WORLD']}", *Installation.command(self, *words)]


def on_inner_host(plain: Installation, host: str, packages: Path, **environ: str) -> Installation:
    shutil.copytree(packages, plain.root, symlinks=True)
    return _OnHost(plain.config, {"WORLD": host, **environ})
