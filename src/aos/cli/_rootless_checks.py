"""What an ordinary user needs besides: the checks of `aos doctor` that root has no use for.

Sources: user_namespaces(7), newuidmap(1), subuid(5), overlayfs.rst (`userxattr`, since Linux 5.11), the kernel's
cgroup-v2.rst ("Delegation"), Ubuntu's kernel.apparmor_restrict_unprivileged_userns, Debian's
kernel.unprivileged_userns_clone.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from aos.cli._checks import Check, Host
from aos.rootless.delegation import delegated_group
from aos.rootless.ranges import subordinate_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["examine_rootless"]

_USUAL = 65536
"""Ids that the users of a distribution's image are among."""


def examine_rootless(host: Host) -> Iterator[Check]:
    yield _namespaces(host)
    yield from _ids(host)
    yield _tools(host)
    yield _overlay()
    yield _delegation(host)
    yield _network(host)


def _namespaces(host: Host) -> Check:
    name = "own user namespace"
    for setting, refused in (
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        if host.read(f"proc/sys/{setting}").strip() == refused:
            key = setting.replace("/", ".")
            return Check(
                name,
                "fail",
                f"{key} = {refused}: ordinary users get none that is worth anything",
                f"as root: sysctl -w {key}={1 - int(refused)}, and a line in /etc/sysctl.d",
            )
    if host.read("proc/sys/user/max_user_namespaces").strip() == "0":
        return Check(
            name, "fail", "switched off for everybody", "as root: sysctl user.max_user_namespaces=15000"
        )
    return Check(name, "ok", "ordinary users may make one")


def _ids(host: Host) -> Iterator[Check]:
    try:
        user = pwd.getpwuid(host.uid).pw_name
    except KeyError:
        user = str(host.uid)
    for kind in ("uid", "gid"):
        extents = subordinate_ids(user, host.uid, kind, etc=host.root / "etc")
        count = sum(count for _, count in extents)
        hint = f"as root: usermod --add-sub{kind}s 100000-165535 {user} (a range that nobody has yet)"
        if not count:
            yield Check(f"subordinate {kind}s", "fail", f"{user} has none in /etc/sub{kind}", hint)
        elif count < _USUAL:
            few = f"{count}: files of other users than the first {count} cannot be unpacked"
            yield Check(f"subordinate {kind}s", "warn", few, hint)
        else:
            yield Check(f"subordinate {kind}s", "ok", f"{count}, from {extents[0][0]}")


def _tools(host: Host) -> Check:
    """They are there, and may do it: by set-user-id or by a capability of the file."""
    install = host.install("uidmap", "shadow-utils")
    for name in ("newuidmap", "newgidmap"):
        path = shutil.which(name, path=host.path)
        if path is None:
            return Check("newuidmap", "fail", f"{name} is not installed", install)
        if not (Path(path).stat().st_mode & stat.S_ISUID or "security.capability" in os.listxattr(path)):
            return Check("newuidmap", "fail", f"{path} has no privileges", f"as root: chmod u+s {path}")
    return Check("newuidmap", "ok", "newuidmap and newgidmap")


def _overlay() -> Check:
    release = platform.release()
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < (5, 11):
        return Check(
            "overlay for users",
            "fail",
            f"Linux {release} lets root alone mount one",
            "use Linux 5.11 or newer",
        )
    return Check("overlay for users", "ok", f"Linux {release}")


def _delegation(host: Host) -> Check:
    name = "cgroup delegation"
    top = host.root / "sys/fs/cgroup"
    hierarchies = (
        [top] if (top / "cgroup.procs").exists() else [file.parent for file in top.glob("*/cgroup.procs")]
    )
    given = delegated_group(hierarchies, host.read("proc/self/cgroup"))
    if given is not None:
        return Check(name, "ok", f"/{given} is this user's")
    if (
        shutil.which("systemd-run", path=host.path)
        and (host.root / f"run/user/{host.uid}/systemd/private").exists()
    ):
        return Check(name, "ok", "the daemon gets a group from this user's systemd")
    return Check(
        name,
        "warn",
        "none: limits on memory, CPUs and pids are refused, agents cannot be paused",
        f"log in where systemd runs a user manager (loginctl enable-linger {host.uid}), or see docs/rootless.md",
    )


def _network(host: Host) -> Check:
    name, without = "network for users", "`--network bridge` cannot be used"
    if shutil.which("slirp4netns", path=host.path) is None:
        return Check(name, "warn", f"slirp4netns is not installed: {without}", host.install("slirp4netns"))
    if not os.access(host.root / "dev/net/tun", os.R_OK | os.W_OK):
        return Check(
            name,
            "warn",
            f"/dev/net/tun cannot be opened: {without}",
            "as root: modprobe tun; chmod 666 /dev/net/tun",
        )
    return Check(name, "ok", "slirp4netns, /dev/net/tun")
