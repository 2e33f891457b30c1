"""What a sandbox is made of: the AgentSpec, as plain values.

A backend reads this and nothing else; where it came from (a package plus overrides, or a build step) is not
its concern.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from aos.oci.layer import Layer
    from aos.runtime.protocol import Isolation

__all__ = [
    "INTERNET",
    "AgentSpec",
    "Bandwidth",
    "Confinement",
    "EgressRule",
    "Limits",
    "Mount",
    "NetworkMode",
    "NetworkSpec",
    "Port",
    "ProcessSpec",
    "Rootfs",
    "Ulimit",
]

NetworkMode = Literal["none", "bridge", "host", "agent"]
"""`none`: a network namespace of its own with loopback only. `bridge`: one with a link to the host's, which
translates addresses and holds the policy. `host`: the host's own. `agent`: that of another sandbox."""


@dataclass(frozen=True, slots=True)
class EgressRule:
    """Whether what goes to these addresses, by this protocol and to these ports, may leave a sandbox."""

    allow: bool
    to: str
    """An IPv4 network, such as `203.0.113.0/24`. A wide one does not open the protected ranges inside of it
    (aos.runtime.network.policy)."""
    protocol: Literal["", "tcp", "udp", "icmp"] = ""
    """Empty: any."""
    ports: tuple[tuple[int, int], ...] = ()
    """First and last of each range; empty: any. With `tcp` or `udp` alone."""


INTERNET = (EgressRule(True, "0.0.0.0/0"),)
"""All but the protected ranges."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the sandbox that is reached at a port of the host."""

    inside: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host: int = 0
    """0: one that is free."""
    address: str = ""
    """The host's address to reach it at; empty: any of them."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bits per second; None: no limit."""

    up: int | None = None
    """What the sandbox sends."""
    down: int | None = None
    """What it receives."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """How a sandbox is connected. All but `mode` is for `bridge`, but `sandbox` for `agent`."""

    mode: NetworkMode = "none"
    sandbox: str = ""
    """Whose namespace it shares."""
    egress: tuple[EgressRule, ...] = INTERNET
    """The first that matches decides; what none matches is refused."""
    ports: tuple[Port, ...] = ()
    bandwidth: Bandwidth = field(default_factory=Bandwidth)


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Layers, base first, under a writable upper directory."""

    layers: tuple[Layer, ...]
    read_only: bool = False
    upper: Path | None = None
    """Where written files go. None: a directory of the sandbox's own, deleted with it. A build names one that
    it commits afterwards; the backend then never deletes it. A sibling `<upper>.work` is the overlay's work
    directory and belongs to the backend."""
    size: int | None = None
    """Bytes that written files may take; None: as many as the disk has. Not together with `upper`."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process inside a sandbox: its entrypoint, or an exec."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    """In order, later wins. PATH gets a default when absent."""
    cwd: str = "/"
    """Absolute; created for the entrypoint if the image lacks it."""
    user: str = ""
    """`user[:group]`, names or numbers as in the OCI image config; empty: 0:0. Names resolve in the sandbox's
    own /etc/passwd and /etc/group."""
    terminal: bool = False
    stdin: bool = False
    """Keep standard input open for whoever attaches; else it is /dev/null."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Something at an absolute path of the sandbox: a host path (`bind`), a fresh tmpfs, a file in memory
    (`file`), or what other layers hold (`layers`). The last two are read-only, and no other process of the host
    sees them."""

    kind: Literal["bind", "tmpfs", "file", "layers"]
    target: str
    source: Path | None = None
    """For `bind`: an existing absolute host path (a file or a directory)."""
    follow: bool = True
    """For `bind`: whether links in `source` are followed. What a policy has allowed is canonical: a link in it has
    been put there since, and is refused."""
    read_only: bool = False
    size: int | None = None
    """For `tmpfs`: bytes; None: half of memory, as the kernel has it."""
    data: bytes = field(default=b"", repr=False)
    """For `file`: what it holds. It is never written to a disk. The file belongs to the process's user."""
    mode: int = 0o400
    """For `file`."""
    layers: tuple[Layer, ...] = ()
    """For `layers`: base first."""
    path: str = "/"
    """For `layers`: what of them; links are followed inside of the layers."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds; None means none."""

    memory: int | None = None
    """Bytes, swap included."""
    cpus: float | None = None
    """CPUs' worth of time per second."""
    pids: int | None = None
    """Tasks, threads included."""


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of each process, as setrlimit(2) has it."""

    name: str
    """Such as `nofile`: the kernel's RLIMIT_NOFILE."""
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a sandbox may do, where that is not the default. A policy says what of it may be asked for."""

    add_capabilities: tuple[str, ...] = ()
    """Beside those of aos.runtime.capabilities; `CAP_…`."""
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str = ""
    """`default` (the same as nothing), `agent`, `unconfined`, or the absolute path of a profile."""
    users: Literal["", "auto", "private", "host"] = ""
    """Whose user ids the sandbox has: `private`, a range of its own; `host`, the host's; `auto`, a range of its own
    where the host, the backend and the mounts can; empty: as the installation is configured."""
    label: str = ""
    """The process's label: an AppArmor profile, or an SELinux context (`user:role:type:level`)."""
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[str, ...] = ()
    """Devices of the Container Device Interface: `vendor.com/class=name`."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """Everything a backend needs to make one sandbox."""

    process: ProcessSpec
    rootfs: Rootfs
    hostname: str = "agent"
    mounts: tuple[Mount, ...] = ()
    limits: Limits = field(default_factory=Limits)
    network: NetworkSpec = field(default_factory=NetworkSpec)
    runtime: str = ""
    """The backend that must run it, or `auto`; empty: the facade's default."""
    isolation: Isolation = "none"
    """The least that it accepts."""
    needs: frozenset[str] = frozenset()
    """Capabilities (`RuntimeInfo.capabilities`) that it cannot do without."""
    leave_stdin_open: bool = False
    """With `process.stdin`: an attached client that goes away does not close the process's standard input."""
    log: Path | None = None
    """Where what the entrypoint writes is appended; not the backend's to delete. None: a file of the sandbox's
    own, deleted with it."""
    annotations: tuple[tuple[str, str], ...] = ()
    confinement: Confinement = field(default_factory=Confinement)
