"""A containerd of the tests' own: root, state, sockets and shims, apart from whatever the host has.

containerd1    the distribution's (1.6 of Debian), started once for all tests
containerd2    version 2, from tools/peers
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Containerd", "containerd1", "containerd2", "program", "running_containerd"]

CONFIG = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{home}/containerd.sock"
[ttrpc]
  address = "{home}/containerd.sock.ttrpc"
"""


@dataclass(slots=True)
class Containerd:
    program: str
    home: Path
    path: str
    """PATH: where it finds shims and runc."""
    socket: str = ""
    """Of one that is not the tests' own."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return self.socket or str(self.home / "containerd.sock")

    def start(self) -> None:
        """Start it (again), and wait until it listens."""
        self.home.joinpath("config.toml").write_text(CONFIG.format(home=self.home))
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--config", str(self.home / "config.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": self.path},
            )
        deadline = time.monotonic() + 20
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not start: {(self.home / 'log').read_text()[-800:]}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self.address)
            except OSError:
                return False
        return True

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def ctr(self, *words: str) -> str:
        done = subprocess.run(
            [Path(self.program).with_name("ctr"), "--address", self.address, "--namespace", "aos", *words],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout


@contextmanager
def running_containerd(program: str, *shims: Path) -> Iterator[Containerd]:
    """`shims`: directories that are searched for shims before any other."""
    home = Path(tempfile.mkdtemp(prefix="aos-containerd-", dir="/tmp"))
    home.chmod(0o711)  # as /run/containerd is: roots of user namespaces walk through
    places = [
        *map(str, shims),
        str(Path(program).parent),
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",
        "/sbin",
    ]
    containerd = Containerd(program, home, ":".join(places))
    try:
        containerd.start()
        yield containerd
    finally:
        containerd.stop()
        shutil.rmtree(home)


def program(version: int) -> str:
    """The path of a containerd of this major version; the test is skipped where there is none."""
    name = "containerd" if version == 1 else "containerd2/containerd"
    found = shutil.which("containerd") if version == 1 else _in_path(name)
    if found is None:
        hint = "apt-get install containerd" if version == 1 else "tools/peers containerd"
        pytest.skip(f"containerd {version} is not installed ({hint})")
    return found


def _in_path(name: str) -> str | None:
    places = [Path(place, name) for place in os.environ.get("PATH", os.defpath).split(":")]
    return next((str(place) for place in places if os.access(place, os.X_OK)), None)


@pytest.fixture(scope="session")
def containerd1() -> Iterator[Containerd]:
    with running_containerd(program(1)) as containerd:
        yield containerd


@pytest.fixture(scope="session")
def containerd2() -> Iterator[Containerd]:
    with running_containerd(program(2)) as containerd:
        yield containerd
