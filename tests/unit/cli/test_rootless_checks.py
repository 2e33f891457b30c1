"""What aos doctor tells an ordinary user, against made-up hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aos.cli._checks import Check, Host
from aos.cli._rootless_checks import examine_rootless

if TYPE_CHECKING:
    from pathlib import Path

UID = 54321


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name, text in {
        "proc/sys/user/max_user_namespaces": "1000\n",
        "proc/self/cgroup": "0::/\n",
        "etc/os-release": "ID=debian\n",
        "etc/subuid": f"{UID}:100000:65536\n",
        "etc/subgid": f"{UID}:100000:65536\n",
        "sys/fs/cgroup/cgroup.procs": "",
        "dev/net/tun": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bin").mkdir()
    for name in ("newuidmap", "newgidmap", "slirp4netns"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o4755)
    return Host(tmp_path, str(tmp_path / "bin"), uid=UID)


def checks(host: Host) -> dict[str, Check]:
    return {check.name: check for check in examine_rootless(host)}


def test_a_good_host(host: Host) -> None:
    assert {check.status for check in checks(host).values()} == {"ok"}


@pytest.mark.parametrize(
    ("file", "text", "name", "status", "hint"),
    [
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n", "own user namespace", "fail", "userns_clone=1"),
        (
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1\n",
            "own user namespace",
            "fail",
            "unprivileged_userns=0",
        ),
        ("proc/sys/user/max_user_namespaces", "0\n", "own user namespace", "fail", "max_user_namespaces"),
        ("etc/subuid", "", "subordinate uids", "fail", "--add-subuids"),
        ("etc/subgid", f"{UID}:100000:10\n", "subordinate gids", "warn", "--add-subgids"),
    ],
)
def test_what_is_missing(host: Host, file: str, text: str, name: str, status: str, hint: str) -> None:
    (host.root / file).parent.mkdir(parents=True, exist_ok=True)
    (host.root / file).write_text(text)
    found = checks(host)[name]
    assert found.status == status
    assert hint in (found.hint or "")


def test_tools_and_devices(host: Host) -> None:
    (host.root / "bin/newgidmap").chmod(0o755)
    assert "chmod u+s" in (checks(host)["newuidmap"].hint or "")
    (host.root / "bin/newgidmap").unlink()
    assert checks(host)["newuidmap"].hint == "apt install uidmap"
    (host.root / "dev/net/tun").unlink()
    assert "modprobe tun" in (checks(host)["network for users"].hint or "")
    (host.root / "bin/slirp4netns").unlink()
    assert checks(host)["network for users"].hint == "apt install slirp4netns"


def test_delegation(host: Host) -> None:
    assert checks(host)["cgroup delegation"].status == "ok"
    (host.root / "proc/self/cgroup").write_text("0::/elsewhere\n")
    (host.root / "sys/fs/cgroup/cgroup.procs").unlink()
    (host.root / "sys/fs/cgroup/elsewhere").mkdir()
    found = checks(host)["cgroup delegation"]
    assert found.status == "warn"
    assert "loginctl enable-linger" in (found.hint or "")
