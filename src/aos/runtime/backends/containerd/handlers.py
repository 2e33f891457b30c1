"""Runtime handlers: what containerd starts sandboxes with, and what each wants to be told.

A handler is a name that containerd turns into a shim's: `io.containerd.kata.v2` is `containerd-shim-kata-v2` on PATH.
"""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aos import errors
from aos.runtime.backends.containerd.settings import RUNC_HANDLER

if TYPE_CHECKING:
    from aos.runtime.backends.containerd.settings import ContainerdConfig
    from aos.runtime.protocol import Isolation
    from aos.runtime.spec import AgentSpec, Limits

__all__ = ["KATA_ANNOTATIONS", "Handler", "KataHandler", "handler", "lacks", "resources"]

_CPU_PERIOD = 100_000  # microseconds; the kernel's default
_MIB = 1 << 20
_CAPABILITIES = frozenset(
    {
        "attach",
        "exec",
        "files",
        "limits",
        "logs",
        "network-none",
        "pause",
        "pause-signals",
        "stats",
        "terminal",
        "update",
    }
)
_ON_HOST = frozenset({"connect", "copy", "network-host", "prepare", "top", "update-pids"})

KATA_ANNOTATIONS = "io.katacontainers.config."
"""What an agent's annotations may set of Kata's configuration, as far as its `enable_annotations` lets them."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Any handler whose sandboxes are processes of this host."""

    backend: str
    """The name of the backend, and of its directories."""
    name: str
    on_host: bool = True
    """Whether the processes of a sandbox are processes, and in cgroups, of this host."""
    isolation: Isolation = "namespaces"

    @property
    def capabilities(self) -> frozenset[str]:
        return _CAPABILITIES | (_ON_HOST if self.on_host else set())

    def options(self, config: ContainerdConfig, owner: tuple[int, int]) -> Any:
        """The handler's options as a protobuf Any; None: its defaults. `owner`: user and group on the host of those
        streams that a process in the sandbox may open again."""
        if self.name != RUNC_HANDLER:
            return None
        from google.protobuf.any_pb2 import Any as Packed

        from aos.runtime.backends.containerd._api.types.runc_options_pb2 import Options

        options = Options(
            root=str(config.state / "runtime" / self.backend),
            binary_name=config.oci_runtime,
            io_uid=owner[0],
            io_gid=owner[1],
        )
        return Packed(type_url="containerd.runc.v1.Options", value=options.SerializeToString())

    def check(self, spec: AgentSpec) -> None:
        """NotImplemented for what sandboxes of this handler cannot have."""
        if self.on_host:
            return
        oci = "run it with `--runtime oci`"
        if spec.confinement.users == "private":
            what = f"give sandboxes of the handler {self.name} user ids of their own"
            raise lacks(self.backend, what, f"{oci}, or with --userns host")
        if (mode := spec.network.mode) != "none":
            what = f"connect sandboxes of the handler {self.name} by the network {mode}"
            raise lacks(self.backend, what, f"{oci} or `--runtime gvisor`, or with --network none")
        if spec.confinement.devices:
            what = f"give sandboxes of the handler {self.name} devices of the host"
            raise lacks(self.backend, what, oci)

    def configure(self, runtime_config: dict[str, Any], spec: AgentSpec, config: ContainerdConfig) -> None:
        """Change a runtime configuration (aos.runtime.bundle) to what this handler wants."""

    def facts(self) -> dict[str, str]:
        return {"handler": self.name}


def handler(name: str) -> Handler:
    """For the backend `containerd`: what is known of the handlers that it may be told to use."""
    if "kata" in name:
        return KataHandler("containerd", name)
    if name == "io.containerd.runsc.v1":
        return Handler("containerd", name, on_host=False, isolation="kernel")
    return Handler("containerd", name)


@dataclass(frozen=True, slots=True)
class KataHandler(Handler):
    """Kata Containers: a virtual machine for each sandbox (docs/kata.md).

    Sources: kata-containers/docs/how-to/how-to-set-sandbox-config-kata.md (the annotations), and
    docs/design/architecture (what reaches the guest by virtio-fs: files, and no Unix sockets)."""

    backend: str = "kata"
    name: str = "io.containerd.kata.v2"
    on_host: bool = False
    isolation: Isolation = "vm"

    def check(self, spec: AgentSpec) -> None:
        Handler.check(self, spec)
        for mount in spec.mounts:
            if mount.kind == "bind" and mount.source and stat.S_ISSOCK(mount.source.stat().st_mode):
                raise lacks(
                    self.backend,
                    f"share the socket {mount.source}",
                    "virtio-fs carries files and no sockets: use `--runtime gvisor`, or reach the host by vsock",
                )

    def configure(self, runtime_config: dict[str, Any], spec: AgentSpec, config: ContainerdConfig) -> None:
        """The machine is made as large as the limits say; what the agent's annotations say goes before."""
        annotations = runtime_config["annotations"]
        if config.kata_config:
            annotations.setdefault("io.katacontainers.config_path", config.kata_config)
        hypervisor = KATA_ANNOTATIONS + "hypervisor."
        if spec.limits.cpus is not None:
            annotations.setdefault(hypervisor + "default_vcpus", str(max(1, math.ceil(spec.limits.cpus))))
        if spec.limits.memory is not None:
            annotations.setdefault(
                hypervisor + "default_memory", str(math.ceil(spec.limits.memory / _MIB) + _GUEST_MIB)
            )

    def facts(self) -> dict[str, str]:
        return {"handler": self.name, "sharing": "files by virtio-fs; no Unix sockets, no coherent memory"}


_GUEST_MIB = 128
"""MiB for the guest's kernel and Kata's agent in it, beyond what the sandbox may use."""


def resources(limits: Limits, *, swap: bool) -> dict[str, Any]:
    """`linux.resources` of the OCI runtime specification. `swap`: whether this host counts swap."""
    found: dict[str, Any] = {}
    if limits.memory is not None:
        found["memory"] = {"limit": limits.memory, **({"swap": limits.memory} if swap else {})}
    if limits.cpus is not None:
        found["cpu"] = {"period": _CPU_PERIOD, "quota": max(1000, round(limits.cpus * _CPU_PERIOD))}
    if limits.pids is not None:
        found["pids"] = {"limit": limits.pids}
    return found


def lacks(backend: str, what: str, hint: str) -> errors.NotImplemented:
    return errors.NotImplemented(
        f"the {backend} backend cannot {what}", code="capability-missing", hint=hint, backend=backend
    )
