"""How this installation uses containerd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.runtime.cdi import CDI_DIRECTORIES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RUNC_HANDLER", "ContainerdConfig"]

RUNC_HANDLER = "io.containerd.runc.v2"


@dataclass(frozen=True, slots=True)
class ContainerdConfig:
    root: Path
    """Sandboxes live in `root/sandboxes/<backend>`: persistent, so that an exit code survives a reboot."""
    state: Path
    """runc's own state: `state/runtime/containerd`."""
    installation: str
    """Marks in containerd what is ours; and the cgroup above all of our sandboxes."""
    address: str = "/run/containerd/containerd.sock"
    namespace: str = "aos"
    snapshotter: str = "overlayfs"
    handler: str = RUNC_HANDLER
    """Of the backend `containerd`: a runtime handler, as containerd names its shims."""
    seccomp: str = ""
    oci_runtime: str = ""
    """What containerd's runc shim starts; empty: what it finds by itself."""
    users: str = "host"
    """As AgentSpec's confinement has it, where that says nothing."""
    ids: str = ""
    """The range that sandboxes' own user ids are from (aos.runtime.id_ranges)."""
    device_hooks: bool = False
    """Whether devices may bring programs that run on the host."""
    cdi: tuple[Path, ...] = CDI_DIRECTORIES
    """Where the host describes its devices."""
    kata_config: str = ""
    """Kata's configuration file, which chooses the hypervisor; empty: Kata's default."""
