"""The checks of aos doctor against made-up hosts, and the whole of it on this one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aos.cli import _checks
from aos.cli._checks import Check, Host, examine
from aos.cli.main import main
from aos.config import Config

GOOD = {
    "proc/filesystems": "nodev\tsysfs\nnodev\toverlay\n\text4\n",
    "proc/sys/user/max_user_namespaces": "1000\n",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow\n",
    "proc/self/mountinfo": "1 0 8:1 / / rw - ext4 /dev/a rw\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n",
    "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian"\n',
    "usr/share/containers/seccomp.json": "{}",
}
TOOLS = ("runc", "conmon", "mmdebstrap", "uv")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    root = tmp_path / "host"
    for name, text in GOOD.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho version 1.2.3\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return Host(root, str(tmp_path / "bin"), uid=os.getuid())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(root=tmp_path / "root", state=tmp_path / "state")


def checks(config: Config, host: Host) -> dict[str, Check]:
    return {check.name: check for check in examine(config, host)}


def test_a_good_host(config: Config, host: Host) -> None:
    found = checks(config, host)
    real = {"networks", "addresses", "other firewalls"}  # of the host that the test is on
    assert {name for name, check in found.items() if check.status != "ok"} <= {"user", "socket path", *real}
    assert found["OCI runtime"].message.endswith("/runc 1.2.3")
    assert found["daemon"].message.startswith("not running")


@pytest.mark.parametrize(
    ("file", "text", "name", "status", "hint"),
    [
        ("proc/filesystems", "ext4\n", "overlayfs", "fail", "modprobe overlay"),
        (
            "proc/sys/user/max_user_namespaces",
            "0\n",
            "user namespaces",
            "warn",
            "sysctl user.max_user_namespaces=15000",
        ),
        (
            "proc/sys/kernel/seccomp/actions_avail",
            None,
            "seccomp",
            "fail",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
        ("sys/fs/cgroup/cgroup.controllers", "cpu pids\n", "cgroups", "warn", "boot with"),
        ("sys/fs/cgroup/cgroup.controllers", None, "cgroups", "fail", "mount -t cgroup2 none /sys/fs/cgroup"),
        (
            "usr/share/containers/seccomp.json",
            None,
            "seccomp profile",
            "fail",
            "apt install golang-github-containers-common",
        ),
        (
            "proc/self/mountinfo",
            "1 0 0:1 / / rw - overlay overlay rw\n",
            "file system",
            "fail",
            "set AOS_ROOT",
        ),
    ],
)
def test_a_host_that_lacks_something(
    file: str, text: str | None, name: str, status: str, hint: str, config: Config, host: Host
) -> None:
    if text is None:
        (host.root / file).unlink()
    else:
        (host.root / file).write_text(text)
    check = checks(config, host)[name]
    assert check.status == status
    assert (check.hint or "").startswith(hint)


@pytest.mark.root
@pytest.mark.parametrize(
    ("changed", "status", "words"),
    [
        ({}, "ok", "for 128 agents at once, from 1048576 on"),
        ({"ids": "1048576:131072"}, "warn", "for 2 agents at once, from 1048576 on; others have"),
        ({"root": Path("/proc/aos")}, "warn", "agents have the host's: the ids of /proc cannot be mapped"),
        ({"root": Path("/proc/aos"), "users": "private"}, "fail", "agents cannot run"),
        ({"users": "host"}, "warn", "agents have the host's, unless"),
    ],
)
def test_user_ids_of_agents(
    changed: dict[str, Any], status: str, words: str, config: Config, host: Host
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root (sudo make test)")
    check = checks(replace(config, **{"ids": "1048576:8388608", **changed}), host)["own user ids"]
    assert check.status == status and check.message.startswith(words)


@pytest.mark.parametrize(
    ("tool", "name", "status"),
    [("runc", "OCI runtime", "fail"), ("conmon", "conmon", "fail"), ("mmdebstrap", "mmdebstrap", "warn")],
)
@pytest.mark.parametrize(
    ("release", "how"),
    [
        ("ID=ubuntu", "apt install {}"),
        ('ID=mint\nID_LIKE="ubuntu debian"', "apt install {}"),
        ("ID=fedora", "dnf install {}"),
        ("ID=arch", "install {} (Debian) or {} (Fedora)"),
    ],
)
def test_a_missing_tool_is_named_by_its_package(
    tool: str, name: str, status: str, release: str, how: str, config: Config, host: Host
) -> None:
    Path(host.path, tool).unlink()
    (host.root / "etc/os-release").write_text(release)
    check = checks(config, host)[name]
    assert (check.status, check.hint) == (status, how.replace("{}", tool))


def test_a_tool_that_the_configuration_names(config: Config, host: Host) -> None:
    check = checks(Config(config.root, config.state, conmon="/nowhere/conmon"), host)["conmon"]
    assert (check.status, check.hint) == (
        "fail",
        "correct [runtime] in the configuration, or apt install conmon",
    )
    check = checks(Config(config.root, config.state, seccomp="/nowhere.json"), host)["seccomp profile"]
    assert check.status == "fail"


def test_hybrid_cgroups(config: Config, host: Host) -> None:
    (host.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    for name in ("cpu", "memory", "pids", "unified"):
        (host.root / "sys/fs/cgroup" / name).mkdir()
    lines = [f"{name}\t1\t1\t1" for name in ("cpu", "memory", "pids")]
    (host.root / "proc/cgroups").write_text("\n".join(["#subsys_name", *lines]))
    check = checks(config, host)["cgroups"]
    assert (check.status, check.message) == ("ok", "hybrid (v1 and v2): cpu, memory, pids")


def test_directories(config: Config, host: Host) -> None:
    config.root.mkdir()
    config.root.chmod(0o777)
    config.state.write_text("a file")
    found = checks(config, host)
    assert found["root directory"].hint == f"chmod go-w {config.root}"
    assert found["state directory"].message == f"{config.state} is no directory"
    config.root.chmod(0o700)
    assert checks(config, host)["root directory"].status == "ok"
    other = Host(host.root, host.path, uid=12345)
    assert checks(config, other)["root directory"].hint == f"chown -R 12345 {config.root}"
    assert checks(config, other)["subordinate uids"].status == "fail"


def test_a_full_disk(config: Config, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    config.root.mkdir(mode=0o700)
    monkeypatch.setattr(_checks, "_NEEDED_FREE", 1 << 60)
    assert checks(config, host)["root directory"].status == "warn"


def test_a_long_socket_path_and_a_clock_that_was_never_set(
    config: Config, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checks, "_EPOCH_OF_AOS", 1 << 40)
    found = checks(Config(config.root, Path("/tmp") / ("x" * 100)), host)
    assert found["socket path"].status == "fail"
    assert found["clock"].status == "fail"


def test_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AOS_ROOT", str(tmp_path / "r"))
    monkeypatch.setenv("AOS_STATE", "/tmp/" + "y" * 100)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "fail  socket path" in out
    assert "hint: set AOS_STATE to a shorter path" in out
    assert main(["doctor", "-o", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert {"name", "status", "message", "hint"} == set(report["checks"][0])


def test_an_unreadable_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AOS_CONFIG", "/nowhere/config.toml")
    assert main(["doctor"]) == 2
    assert "the configuration named by AOS_CONFIG does not exist" in capsys.readouterr().err
