"""The checks of `aos doctor`: each looks at one thing, and says what to do when it is not as it should be.

Sources: cgroups(7), overlayfs.rst and userspace-api/seccomp_filter.rst of the Linux documentation, unix(7) for the
length of a socket's path, os-release(5).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aos.errors import AosError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.config import Config

__all__ = ["Check", "Host", "examine"]

Status = Literal["ok", "warn", "fail"]

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
_NEEDED_FREE = 1 << 30
_SOCKET_PATH = 107
_EPOCH_OF_AOS = 1_735_689_600
"""2025-01-01: a clock before it was never set."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Status
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """Where the checks look; a test gives a directory that looks like another host's `/`."""

    root: Path = Path("/")
    path: str = _PATH
    uid: int = -1

    def read(self, name: str) -> str:
        """The text of a file of the host, empty when it is not there."""
        try:
            return (self.root / name).read_text(errors="replace")
        except OSError:
            return ""

    def install(self, debian: str, fedora: str | None = None) -> str:
        """Say how this distribution installs a package; both names where it is neither kin."""
        release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', self.read("etc/os-release"), re.MULTILINE))
        kin = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
        if kin & {"debian", "ubuntu"}:
            return f"apt install {debian}"
        if kin & {"fedora", "rhel", "centos"}:
            return f"dnf install {fedora or debian}"
        return f"install {debian} (Debian) or {fedora or debian} (Fedora)"


def examine(config: Config, host: Host | None = None) -> Iterator[Check]:
    host = host or Host(uid=os.getuid())
    yield from _user(host)
    yield from _kernel(host)
    yield from _cgroups(host)
    yield from _tools(config, host)
    yield _seccomp_profile(config, host)
    yield _directory("root", config.root, host)
    yield _directory("state", config.state, host)
    yield _file_system(config.root, host)
    yield from _of_root(config, host)
    yield _socket_path(config)
    yield _clock()
    yield from _node(config)


def _user(host: Host) -> Iterator[Check]:
    if host.uid == 0:
        yield Check("user", "ok", "root")
        return
    from aos.cli._rootless_checks import examine_rootless

    yield Check("user", "ok", f"uid {host.uid}: builds and agents are in a user namespace of this user's")
    yield from examine_rootless(host)


def _kernel(host: Host) -> Iterator[Check]:
    release = platform.release()
    if re.search(r"\boverlay$", host.read("proc/filesystems"), re.MULTILINE):
        yield Check("overlayfs", "ok", f"Linux {release}")
    else:
        yield Check("overlayfs", "fail", f"Linux {release} has not loaded overlayfs", "modprobe overlay")
    limit = host.read("proc/sys/user/max_user_namespaces").strip()
    if limit and limit != "0":
        yield Check("user namespaces", "ok", f"up to {limit}")
    else:
        yield Check(
            "user namespaces",
            "warn",
            "switched off: agents share the host's users",
            "sysctl user.max_user_namespaces=15000",
        )
    actions = host.read("proc/sys/kernel/seccomp/actions_avail")
    if "errno" in actions.split():
        yield Check("seccomp", "ok", "filters work")
    else:
        yield Check(
            "seccomp", "fail", "this kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER"
        )


def _cgroups(host: Host) -> Iterator[Check]:
    wanted = ("cpu", "memory", "pids")
    top = host.root / "sys/fs/cgroup"
    if (top / "cgroup.controllers").exists():
        mode, there = "v2", set(host.read("sys/fs/cgroup/cgroup.controllers").split())
    else:
        lines = [line.split() for line in host.read("proc/cgroups").splitlines() if not line.startswith("#")]
        there = {line[0] for line in lines if len(line) == 4 and line[3] == "1" and (top / line[0]).is_dir()}
        mode = "hybrid (v1 and v2)" if (top / "unified").is_dir() else "v1"
        if not there:
            yield Check("cgroups", "fail", "not mounted", "mount -t cgroup2 none /sys/fs/cgroup")
            return
    missing = [name for name in wanted if name not in there]
    if missing:
        yield Check(
            "cgroups",
            "warn",
            f"{mode}, without {', '.join(missing)}: limits on that have no effect",
            "boot with systemd.unified_cgroup_hierarchy=1 and cgroup_enable=memory",
        )
    else:
        yield Check("cgroups", "ok", f"{mode}: {', '.join(wanted)}")


def _tools(config: Config, host: Host) -> Iterator[Check]:
    runtimes = (config.oci_runtime,) if config.oci_runtime else ("runc", "crun", "youki")
    yield _tool("OCI runtime", runtimes, host, "runc", "fail", "agents cannot run")
    yield _tool("conmon", (config.conmon,), host, "conmon", "fail", "agents cannot run")
    gvisor = _tool("gVisor", (config.runsc,), host, "runsc", "ok", "`--runtime gvisor` cannot be used")
    needed = config.runtime == "gvisor" or config.isolation in ("kernel", "vm")
    yield replace(gvisor, status="fail") if needed and gvisor.hint else gvisor
    yield Check(
        "runtime", "ok", f"{config.runtime} by default; `aos runtimes` tells what auto takes, and why"
    )
    yield _tool(
        "mmdebstrap", ("mmdebstrap",), host, "mmdebstrap", "warn", "the build plug-in debian does not work"
    )
    yield _uv(host)


def _tool(
    name: str, commands: tuple[str, ...], host: Host, package: str, status: Status, without: str
) -> Check:
    for command in commands:
        path = shutil.which(command, path=host.path)
        if path:
            return Check(name, "ok", f"{path} {_version(path)}".rstrip())
    hint = host.install(package)
    if not set(commands) <= {"runc", "crun", "youki", package}:
        hint = f"correct [runtime] in the configuration, or {hint}"
    return Check(name, status, f"{' or '.join(commands)} is not installed: {without}", hint)


def _version(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"(does not answer: {error})"
    found = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout)
    return found[0] if found else ""


def _uv(host: Host) -> Check:
    try:
        from uv import find_uv_bin

        return Check("uv", "ok", f"{find_uv_bin()} {_version(find_uv_bin())}")
    except (ImportError, FileNotFoundError):
        path = shutil.which("uv", path=host.path)
    if path:
        return Check("uv", "ok", f"{path} {_version(path)}")
    return Check("uv", "warn", "not installed: install: {pip: …} does not work", "pip install uv")


def _seccomp_profile(config: Config, host: Host) -> Check:
    if config.seccomp:
        if Path(config.seccomp).is_file():
            return Check("seccomp profile", "ok", config.seccomp)
        return Check(
            "seccomp profile",
            "fail",
            f"{config.seccomp} does not exist",
            "correct [runtime] seccomp in the configuration",
        )
    for name in ("etc/containers/seccomp.json", "usr/share/containers/seccomp.json"):
        if (host.root / name).is_file():
            return Check("seccomp profile", "ok", f"/{name}")
    return Check(
        "seccomp profile",
        "fail",
        "no seccomp.json of containers-common",
        host.install("golang-github-containers-common", "containers-common"),
    )


def _directory(name: str, path: Path, host: Host) -> Check:
    """A directory of ours: our own, writable by nobody else, with room; or one that we can make."""
    label = f"{name} directory"
    existing = _existing(path)
    if not existing.is_dir():
        return Check(label, "fail", f"{existing} is no directory", f"set AOS_{name.upper()} to another path")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(label, "fail", f"{existing} cannot be written", f"set AOS_{name.upper()} or use sudo")
    free = shutil.disk_usage(existing).free
    room = f"{free / (1 << 30):.1f} GiB free"
    if existing != path:
        return Check(label, "ok", f"{path} is made on first use, {room}")
    facts = path.stat()
    if facts.st_uid != host.uid:
        return Check(label, "fail", f"{path} belongs to uid {facts.st_uid}", f"chown -R {host.uid} {path}")
    if stat.S_IMODE(facts.st_mode) & 0o022:
        mode = stat.S_IMODE(facts.st_mode)
        return Check(label, "fail", f"{path} is writable for others (mode {mode:o})", f"chmod go-w {path}")
    if name == "root" and free < _NEEDED_FREE:
        return Check(label, "warn", f"{path}: only {room}", "make room; aos df and aos prune help")
    return Check(label, "ok", f"{path}, {room}")


def _existing(path: Path) -> Path:
    """It, or the nearest of what holds it."""
    return next(place for place in (path, *path.parents) if place.exists())


def _file_system(root: Path, host: Host) -> Check:
    """The upper directory of an overlay needs extended attributes, and cannot itself be on an overlay."""
    kind, length = "", -1
    for line in host.read("proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape") if left else ""
        if root.is_relative_to(point) and len(point) > length:
            kind, length = right.split()[0], len(point)
    if kind in ("overlay", "nfs", "nfs4", "cifs", "vfat", "9p", "virtiofs"):
        return Check(
            "file system",
            "fail",
            f"{root} is on {kind}, where overlayfs cannot keep what agents write",
            "set AOS_ROOT to a directory on ext4, xfs or btrfs",
        )
    return Check("file system", "ok", f"{root} is on {kind or 'an unknown file system'}")


def _of_root(config: Config, host: Host) -> Iterator[Check]:
    if host.uid == 0:
        from aos.cli._root_checks import check_user_ids, examine_networks

        if host.read("proc/sys/user/max_user_namespaces").strip() not in ("", "0"):
            yield check_user_ids(config, _existing(config.root))
        yield from examine_networks(config, host)


def _socket_path(config: Config) -> Check:
    length = len(os.fsencode(config.socket))
    if length > _SOCKET_PATH:
        return Check(
            "socket path",
            "fail",
            f"{config.socket} has {length} bytes, more than {_SOCKET_PATH}",
            "set AOS_STATE to a shorter path",
        )
    return Check("socket path", "ok", f"{length} of {_SOCKET_PATH} bytes")


def _clock() -> Check:
    now = time.time()
    words = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _EPOCH_OF_AOS:
        return Check("clock", "fail", f"{words} is in the past", "set the clock: timedatectl set-ntp true")
    return Check("clock", "ok", words)


def _node(config: Config) -> Iterator[Check]:
    from aos import __version__
    from aos.cli import _node as node

    try:
        with node.connect(start=False) as connection:
            status = connection.call("node.status")
    except AosError as error:
        if error.code == "daemon-not-running":
            yield Check("daemon", "ok", "not running; it starts on first use")
        else:
            yield Check("daemon", "fail", error.message, error.hint)
    else:
        words = f"{status['version']}, pid {status['pid']}, {status['running']} of {status['agents']} agents running"
        if status["version"] == __version__:
            yield Check("daemon", "ok", words)
        else:
            yield Check("daemon", "warn", f"{words}; this command is {__version__}", "aos node restart")
