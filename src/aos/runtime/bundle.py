"""From AgentSpec to the configuration of an OCI runtime: a pure function, and every default that isolates.

Source: OCI runtime specification 1.0.2, "config.md" and "config-linux.md". Nothing here is optional for an agent
by accident: what loosens isolation has a name in AgentSpec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aos.runtime.capabilities import held_capabilities

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from aos.content.protocol import IdMap
    from aos.runtime.spec import AgentSpec, Confinement, Mount, ProcessSpec, Ulimit
    from aos.runtime.users import User

__all__ = ["DEFAULT_PATH", "exec_config", "process_config", "runtime_config"]

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
    cgroup: str | None,
    files: Collection[str],
    sources: Mapping[str, str],
    seccomp: object,
    open_files: int,
    ids: IdMap | None = None,
    user_namespace: str = "",
    network: str | None = "",
) -> dict[str, Any]:
    """`config.json`. `rootfs` and `cgroup` are paths (None: it gets no group); `sources` maps what something is mounted
    at to where it is for the sandbox to take (of spec.mounts all but tmpfs; `files` of ours in /etc, read-only; /sys
    where the sandbox may not mount it); `open_files` is the limit of open descriptors (never above the daemon's own
    hard limit); `ids`: as whose ids the sandbox's own are on the host, in the user namespace at the path
    `user_namespace`; `network` is the path of a network namespace, empty for a new one with nothing in it, None for the
    host's."""
    confinement = spec.confinement
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    if network is not None:
        namespaces.append({"type": "network", **({"path": network} if network else {})})
    mounts = [
        {"destination": at, "type": "bind", "source": sources[at], "options": ["rbind", "rprivate"]}
        if (at := mount["destination"]) in sources
        else mount
        for mount in _MOUNTS
    ]
    # A user namespace may not change what its maker has set: the flags are on what is taken, and inherited.
    own = ids is not None
    mounts += [_bind(target, sources[target], read_only=True, set_already=own) for target in files]
    mounts += [_mount(mount, sources, set_already=own) for mount in spec.mounts]
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            **process_config(spec.process, user, confinement),
            "rlimits": _rlimits(confinement.ulimits, open_files),
        },
        "root": {"path": rootfs, "readonly": spec.rootfs.read_only},
        "hostname": spec.hostname,
        "mounts": mounts,
        "annotations": dict(spec.annotations),
        "linux": {
            "namespaces": namespaces,
            **({"cgroupsPath": cgroup} if cgroup is not None else {}),
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "rootfsPropagation": "private",
        },
    }
    if seccomp is not None:
        config["linux"]["seccomp"] = seccomp
    if ids is not None:
        # runc before 1.1.10 wants the map of a namespace that it joins, later ones check that it is this.
        namespaces.append({"type": "user", **({"path": user_namespace} if user_namespace else {})})
        for name, extents in (("uidMappings", ids.uids), ("gidMappings", ids.gids)):
            config["linux"][name] = [
                {"containerID": inside, "hostID": outside, "size": count}
                for inside, outside, count in extents
            ]
    if confinement.label.count(":") >= 3:
        config["linux"]["mountLabel"] = confinement.label
    return config


def _rlimits(ulimits: Iterable[Ulimit], open_files: int) -> list[dict[str, Any]]:
    """A file for a core is not written: memory holds keys."""
    limits = {"NOFILE": (open_files, open_files), "CORE": (0, 0)}
    limits |= {limit.name.upper(): (limit.soft, limit.hard) for limit in ulimits}
    return [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard} for name, (soft, hard) in limits.items()]


def process_config(process: ProcessSpec, user: User, confinement: Confinement) -> dict[str, Any]:
    """The `process` object, for the entrypoint."""
    bounding = list(held_capabilities(confinement.add_capabilities, confinement.drop_capabilities))
    label = {}
    if confinement.label:  # a context of SELinux has colons, the name of a profile has none
        kind = "selinuxLabel" if confinement.label.count(":") >= 3 else "apparmorProfile"
        label = {kind: confinement.label}
    return {
        **_process(process, user, bounding),
        **label,
        "noNewPrivileges": True,
    }


def exec_config(process: ProcessSpec, user: User, entrypoint: Mapping[str, Any]) -> dict[str, Any]:
    """The `process` object of a further process: as confined as the sandbox's entrypoint is."""
    return {**entrypoint, **_process(process, user, entrypoint["capabilities"]["bounding"])}


def _process(process: ProcessSpec, user: User, bounding: list[str]) -> dict[str, Any]:
    env = {"PATH": DEFAULT_PATH, **({"TERM": "xterm"} if process.terminal else {}), **dict(process.env)}
    # A user other than root gets no capabilities: it could use none without a way to gain privileges.
    held = bounding if user.uid == 0 else []
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
        "capabilities": {"bounding": bounding, "effective": held, "permitted": held},
    }


def _mount(mount: Mount, sources: Mapping[str, str], *, set_already: bool) -> dict[str, Any]:
    if mount.kind != "tmpfs":
        read_only = mount.read_only or mount.kind != "bind"
        return _bind(mount.target, sources[mount.target], read_only=read_only, set_already=set_already)
    options = ["nosuid", "nodev", "mode=1777"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.read_only:
        options.append("ro")
    return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _bind(target: str, source: str, *, read_only: bool, set_already: bool) -> dict[str, Any]:
    options = ["rbind", "rprivate"]
    if not set_already:
        options += ["nosuid", "nodev", "ro" if read_only else "rw"]
    return {"destination": target, "type": "bind", "source": source, "options": options}
