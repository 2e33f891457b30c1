"""gVisor's runsc as the tool of a supervised backend: a kernel of its own, in user space, for each sandbox.

Facts about runsc are from gvisor.dev/gvisor, runsc/: config/config.go (options), container/state_file.go (the file
that holds a container's state), sandbox/sandbox.go (the control socket), cmd/ (verbs).
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aos import errors
from aos.runtime.backends.supervised.host import find_program
from aos.runtime.backends.supervised.launch import ToolFailed
from aos.runtime.state import ProcessInfo

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.backends.supervised.host import Host
    from aos.runtime.backends.supervised.record import Record
    from aos.runtime.protocol import Isolation
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec
    from aos.runtime.state import ExitStatus, Usage

__all__ = ["Runsc"]

_OPTIONS = (
    # Its processes are in our cgroup from their first moment: it needs none of its own, and refuses hybrid hosts.
    "--ignore-cgroups",
    # What a sandbox writes is in the overlay's upper directory, where the host sees it.
    "--overlay2=none",
    # Regions and volumes are shared with the host and with other sandboxes: both see what either writes.
    "--file-access-mounts=shared",
    # The kernel's socket is the host's.
    "--host-uds=open",
    "--platform=systrap",
)

_OWN_TASKS = 256
"""Of gVisor's kernel and its gofer, at most, on the host."""

_WITHOUT_TTY = '''for word; do shift; [ "$word" = --tty ] || set -- "$@" "$word"; done; exec "$0" "$@"'''
"""conmon 2.1.6 says --tty to an exec with a terminal; runsc refuses the word, and reads the process's `terminal`."""


class Runsc:
    backend = "gvisor"
    capabilities = frozenset(
        {
            "attach",
            "checkpoint",
            "connect",
            "exec",
            "files",
            "limits",
            "logs",
            "network-host",
            "network-none",
            "pause",
            "pause-signals",
            "restore",
            "stats",
            "terminal",
            "top",
            "update",
        }
    )
    isolation: Isolation = "kernel"
    seccomp = False
    user_namespaces = False
    devices = False
    own_loopback = False
    own_group = False

    def __init__(self, program: str = "runsc") -> None:
        self._program = program

    def find(self) -> str:
        return find_program(
            self._program, install="install gVisor: https://gvisor.dev/docs/user_guide/install"
        )

    def options(self, spec: AgentSpec) -> tuple[str, ...]:
        """`sandbox`: a network stack of its own, over the interfaces of the sandbox's network namespace that are up. Not
        its `none`, whose ports it does not forward."""
        mode = spec.network.mode
        if mode == "agent":
            raise errors.NotImplemented(
                "the gvisor backend cannot share the network of another agent: each sandbox has a stack of its own",
                code="capability-missing",
                hint="run both with `--runtime oci`, or let one publish a port (`--network bridge -p`)",
                backend="gvisor",
                capability="network:agent",
            )
        return (*_OPTIONS, f"--network={'host' if mode == 'host' else 'sandbox'}")

    def exec_prefix(self, process: ProcessSpec) -> tuple[str, ...]:
        return ("/bin/sh", "-c", _WITHOUT_TTY) if process.terminal else ()

    def configure(self, config: dict[str, Any], spec: AgentSpec) -> None:
        if spec.limits.pids is not None:
            limit = {"type": "RLIMIT_NPROC", "soft": spec.limits.pids, "hard": spec.limits.pids}
            config["process"]["rlimits"].append(limit)
        # Its `ro` is for the whole tree, with what is mounted in there; the host's is there already, part by part.
        writable = [mount.target for mount in spec.mounts if not mount.read_only]
        for mount in config["mounts"]:
            if any(target.startswith(f"{mount['destination']}/") for target in writable):
                mount["options"] = [option for option in mount["options"] if option != "ro"]

    def group_limits(self, limits: Limits) -> Limits:
        """The host's tasks are not the sandbox's: gVisor has some for itself, and for each address space as many as
        there are CPUs. A bound for them holds what the limit inside, which is for each user, lets pass."""
        if limits.pids is None:
            return limits
        return replace(limits, pids=_OWN_TASKS + limits.pids * 2 * ((os.cpu_count() or 1) + 2))

    def facts(self) -> Mapping[str, str]:
        return {
            "platform": "systrap",
            "limits": "its own kernel takes 20 MB and more of a memory limit; the limit of processes holds for each user, "
            "and from the start on; no seccomp profile inside; a checkpoint breaks connections to host sockets; no network "
            "shared with another agent",
        }

    def waiting(self, host: Host, id: SandboxId, pid: int) -> bool:
        return _status(host, id) in ("creating", "created")

    def paused(self, host: Host, id: SandboxId) -> bool:
        return _status(host, id) == "paused"

    async def start(self, host: Host, id: SandboxId, record: Record, ended: asyncio.Task[ExitStatus]) -> None:
        if record.image:
            bundle = str(host.sandboxes / id)
            code, said = await host.call(
                id, "restore", "--detach", "--bundle", bundle, "--image-path", record.image
            )
        else:
            code, said = await host.call(id, "start")
        if code != 0:
            raise ToolFailed(said)

    async def signal(self, host: Host, id: SandboxId, signum: signal.Signals, *, everyone: bool) -> None:
        if self.paused(host, id):
            if signum == signal.SIGKILL:
                await host.kill_payload(id)  # what is paused inside does not die of a signal inside
                return
            # runsc refuses to signal what is paused. On disk, for whoever resumes it may be another daemon.
            with _waiting_signals(host, id).open("a") as file:
                file.write(f"{signum.value} {'--all' if everyone else ''}\n")
            if not self.paused(host, id):  # nor was it when that was written
                await self.resumed(host, id)
            return
        await _kill(host, id, signum.value, everyone=everyone)

    async def resumed(self, host: Host, id: SandboxId) -> None:
        """Deliver the signals of the pause: all of them, some twice where this is interrupted."""
        path = _waiting_signals(host, id)
        with suppress(FileNotFoundError):
            for line in path.read_text().splitlines():
                number, _, everyone = line.partition(" ")
                await _kill(host, id, int(number), everyone=bool(everyone))
            path.unlink()

    async def processes(self, host: Host, id: SandboxId) -> list[ProcessInfo]:
        code, said = await host.call(id, "ps", everything=True)
        if code != 0:
            raise ToolFailed(said)
        # UID PID PPID PGID C TTY STIME TIME CMD. The times are to the minute, and of the system alone.
        rows = [line.split(None, 8) for line in said.splitlines()[1:]]
        return [ProcessInfo(int(pid), int(ppid), uid, row[-1]) for uid, pid, ppid, *row in rows]

    async def connect(self, host: Host, id: SandboxId, port: int) -> int:
        """The sandbox connects, for its network stack is its own, and passes on what is said to a socket that it is given
        by name. The name is by way of a descriptor: a socket address takes 107 bytes."""
        directory = os.open(host.directory(id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        name = f"connect-{os.urandom(4).hex()}"
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"/proc/self/fd/{directory}/{name}")
                listening.listen(1)
                listening.setblocking(False)
                stream = ("--stream", f"/proc/{os.getpid()}/fd/{directory}/{name}")
                code, said = await host.call(id, "port-forward", *stream, after=(str(port),))
                if code != 0:
                    number = errno.ECONNREFUSED if "refused" in said else errno.EHOSTUNREACH
                    raise OSError(number, said)
                return listening.accept()[0].detach()
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            os.close(directory)

    def usage(self, usage: Usage) -> Usage:
        return replace(usage, pids=None)  # the host's tasks are not the sandbox's

    def forget(self, host: Host, id: SandboxId) -> None:
        for name in (f"{_state(id)}.state", f"{_state(id)}.lock", f"runsc-{id}.sock"):
            (host.states / name).unlink(missing_ok=True)


async def _kill(host: Host, id: SandboxId, number: int, *, everyone: bool) -> None:
    await host.call(id, "kill", *(["--all"] if everyone else []), after=(str(number),))


def _waiting_signals(host: Host, id: SandboxId) -> Path:
    return host.sandboxes / id / "signals"


def _state(id: SandboxId) -> str:
    return f"{id}_sandbox:{id}"


def _status(host: Host, id: SandboxId) -> str:
    """`creating`, `created`, `running`, `paused`, `stopped`; empty when there is no such container."""
    path: Path = host.states / f"{_state(id)}.state"
    try:
        return str(json.loads(path.read_bytes()).get("status", ""))
    except (OSError, ValueError):
        return ""
