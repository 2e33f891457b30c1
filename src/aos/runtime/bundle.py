"""From AgentSpec to the configuration of an OCI runtime: a pure function, and every default that isolates.

Source: OCI runtime specification 1.0.2, "config.md" and "config-linux.md". Nothing here is optional for an agent
by accident: what loosens isolation has a name in AgentSpec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.runtime.spec import AgentSpec, Mount, ProcessSpec
    from aos.runtime.users import User

__all__ = ["CAPABILITIES", "DEFAULT_PATH", "process_config", "runtime_config"]

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What package managers and servers need as root of their own files, and no more: the default of
containers-common. Not in it, though in Docker's: MKNOD, NET_RAW, AUDIT_WRITE."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {
        "destination": "/dev/mqueue",
        "type": "mqueue",
        "source": "mqueue",
        "options": ["nosuid", "noexec", "nodev"],
    },
    {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
)


def runtime_config(
    spec: AgentSpec,
    *,
    user: User,
    rootfs: str,
    cgroup: str,
    files: Mapping[str, str],
    sources: Mapping[str, str],
    seccomp: object,
    open_files: int,
) -> dict[str, Any]:
    """`config.json`. `rootfs` and `cgroup` are paths; `files` maps /etc files to host files mounted read-only;
    `sources` maps the targets of `file` and `layers` mounts to where they are mounted for the sandbox; `open_files` is the limit of open descriptors (never above the daemon's own hard limit)."""
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    if spec.network == "none":
        namespaces.append({"type": "network"})
    mounts = [*_MOUNTS]
    mounts += [_bind(target, source, read_only=True) for target, source in files.items()]
    mounts += [_mount(mount, sources) for mount in spec.mounts]
    return {
        "ociVersion": "1.0.2",
        "process": {
            **process_config(spec.process, user),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": open_files, "hard": open_files},
                {
                    "type": "RLIMIT_CORE",
                    "soft": 0,
                    "hard": 0,
                },  # memory holds keys: it is not written to a file
            ],
        },
        "root": {"path": rootfs, "readonly": spec.rootfs.read_only},
        "hostname": spec.hostname,
        "mounts": mounts,
        "annotations": dict(spec.annotations),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "seccomp": seccomp,
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "rootfsPropagation": "private",
        },
    }


def process_config(process: ProcessSpec, user: User) -> dict[str, Any]:
    """The `process` object, for the entrypoint and for an exec."""
    env = {"PATH": DEFAULT_PATH, **({"TERM": "xterm"} if process.terminal else {}), **dict(process.env)}
    # A user other than root gets no capabilities: it could use none without a way to gain privileges.
    held = list(CAPABILITIES) if user.uid == 0 else []
    return {
        "terminal": process.terminal,
        # Without groups no list: gVisor finds an empty one different from the none that a checkpoint holds.
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            **({"additionalGids": list(user.groups)} if user.groups else {}),
        },
        "args": list(process.args),
        "env": [f"{key}={value}" for key, value in env.items()],
        "cwd": process.cwd,
        "capabilities": {"bounding": list(CAPABILITIES), "effective": held, "permitted": held},
        "noNewPrivileges": True,
    }


def _mount(mount: Mount, sources: Mapping[str, str]) -> dict[str, Any]:
    if mount.kind == "bind":
        return _bind(mount.target, str(mount.source), read_only=mount.read_only)
    if mount.kind != "tmpfs":
        return _bind(mount.target, sources[mount.target], read_only=True)
    options = ["nosuid", "nodev", "mode=1777"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.read_only:
        options.append("ro")
    return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _bind(target: str, source: str, *, read_only: bool) -> dict[str, Any]:
    options = ["rbind", "rprivate", "nosuid", "nodev", "ro" if read_only else "rw"]
    return {"destination": target, "type": "bind", "source": source, "options": options}
