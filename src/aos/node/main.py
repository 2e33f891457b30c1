"""aosd as a process: one for each installation, ready when it serves, gone without taking an agent along."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aos.errors import AlreadyExists, AosError, FailedPrecondition, Internal
from aos.node.adoption import adopt
from aos.node.calls import Calls
from aos.node.housekeeping import BuildCache, Housekeeping
from aos.node.network import NodeNetwork
from aos.node.node import Node
from aos.node.pools import Pools
from aos.node.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aos.clock import Clock
    from aos.config import Config
    from aos.content.store import ContentStore
    from aos.ids import IdSource
    from aos.kernel.journal import Journal
    from aos.node.programs import PackagePrograms
    from aos.node.volumes import Volumes
    from aos.registry.protocol import PackageRegistry
    from aos.runtime.facade import RuntimeFacade
    from aos.runtime.network.maker import BridgeMaker

__all__ = ["Ready", "already_running", "boot_id", "prepare", "serve", "single_instance"]

log = logging.getLogger("aosd")


class Ready:
    """Tells whoever started the daemon, through a pipe, that it serves, or why it does not. Once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def serving(self) -> None:
        self._say(b"ready\n")

    def failed(self, error: AosError) -> None:
        self._say(msgspec.json.encode(error.to_wire()))

    def _say(self, word: bytes) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, word)
            os.close(self._descriptor)
            self._descriptor = None


def prepare(config: Config, *, foreground: bool) -> None:
    """Directories, the log, limits, and a process that depends on nothing of whoever started it."""
    os.umask(0o077)
    # A descriptor for each sandbox: what a session has by default, 1,024, would be the end at a thousand agents.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for directory in (config.root, config.state, config.socket.parent, config.root / "node"):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    config.socket.parent.chmod(0o700)
    os.chdir("/")
    if not foreground:
        descriptor = os.open(config.root / "node" / "aosd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )


def boot_id() -> str:
    """What tells this boot of the host from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def single_instance(config: Config) -> Iterator[None]:
    """AlreadyExists `node-running` while another daemon serves this state, FailedPrecondition `root-in-use` while
    one with another state has this root."""
    with (
        _held(config.socket.parent / "aosd.lock", _running),
        _held(config.root / "node" / "aosd.lock", lambda pid: _root_in_use(config, pid)),
    ):
        yield


@contextlib.contextmanager
def _held(path: Path, refused: Callable[[str], AosError]) -> Iterator[None]:
    """Hold a lock that ends with the process; the file tells others whose it is."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refused(os.pread(descriptor, 32, 0).decode().strip()) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _running(pid: str) -> AosError:
    return AlreadyExists(
        f"a node with this state runs already (pid {pid})",
        code="node-running",
        hint="`aos node status` shows it; another installation needs its own AOS_ROOT and AOS_STATE",
        pid=pid,
    )


def _root_in_use(config: Config, pid: str) -> AosError:
    return FailedPrecondition(
        f"another node (pid {pid}) has the root {config.root}, with another state directory",
        code="root-in-use",
        hint="use its AOS_STATE, stop it, or give this installation an AOS_ROOT of its own",
        pid=pid,
    )


def already_running(config: Config) -> bool:
    """Whether the daemon that holds the lock answers; waits for one that is starting (10 s at most)."""
    import time

    for _ in range(200):
        client = socket.socket(socket.AF_UNIX)
        try:
            with contextlib.chdir(config.socket.parent):
                client.connect(config.socket.name)
        except OSError:
            time.sleep(0.05)
        else:
            return True
        finally:
            client.close()
    return False


async def serve(
    config: Config,
    *,
    runtime: RuntimeFacade,
    journal: Journal,
    programs: PackagePrograms,
    content: ContentStore,
    registry: PackageRegistry,
    builds: BuildCache,
    volumes: Volumes,
    clock: Clock,
    ids: IdSource,
    network: BridgeMaker,
    boot: str,
    ready: Ready,
) -> None:
    """Adopt what runs, then answer calls until SIGTERM, SIGINT or `node.stop`. Agents live on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    logs = config.root / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    async with (
        NodeNetwork(network) as connected,
        Node(
            runtime=runtime,
            journal=journal,
            programs=programs,
            logs=logs,
            clock=clock,
            ids=ids,
            boot=boot,
            allow_host_hooks=config.allow_host_hooks,
        ) as node,
    ):
        connected.serve(node)
        await adopt(node)
        node.start(volumes.sweep(), "sweep volumes")
        async with Pools(node, programs, config.root / "node" / "pools.json", config.pool) as pools:
            housekeeping = Housekeeping(node, content, registry, builds, pools, config.root)
            calls = Calls(node, programs, housekeeping, volumes, connected, pools, config, stop.set)
            with _listening(config) as listening:
                server = asyncio.create_task(Server(listening, calls).run(), name="server")
                gc.collect()
                gc.freeze()  # what the start made stays: the collector need not look at it again
                log.info("serving %s", config.socket)
                ready.serving()
                ended = asyncio.create_task(stop.wait(), name="stop")
                await asyncio.wait({server, ended}, return_when=asyncio.FIRST_COMPLETED)
                if server.done() and (error := server.exception()) is not None:
                    raise Internal(f"the server ended: {error}") from error
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)
    log.info("stopped; agents go on")


@contextlib.contextmanager
def _listening(config: Config) -> Iterator[socket.socket]:
    """The socket, in place of what a daemon that is gone has left (the lock is ours)."""
    config.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        with contextlib.chdir(config.socket.parent):  # an address takes 107 bytes, a path may have more
            listening.bind(config.socket.name)
        config.socket.chmod(0o600)
        listening.listen(128)
        try:
            yield listening
        finally:
            config.socket.unlink(missing_ok=True)
