"""`aos run`: what an agent may do, made narrower and wider; and what an installation refuses."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fix_installation import Installation

pytestmark = pytest.mark.root


def _status(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))


def _configured(aos: Installation, text: str) -> Installation:
    """The same installation with a configuration file."""
    file = aos.root.parent / "config.toml"
    file.write_text(text)
    return replace(aos, environ={**aos.environ, "AOS_CONFIG": str(file)})


def test_capabilities_are_added_and_dropped_by_name(aos: Installation) -> None:
    out = aos(
        "run",
        "--rm",
        "--cap-add",
        "net_raw",
        "--cap-drop",
        "CHOWN",
        "busybox:1",
        "-c",
        "cat /proc/self/status",
    ).out
    held = int(_status(out)["CapEff"], 16)
    assert held & 1 << 13 and not held & 1
    out = aos("run", "--rm", "--cap-drop", "ALL", "busybox:1", "-c", "cat /proc/self/status").out
    assert int(_status(out)["CapBnd"], 16) == 0
    assert "NOTHING" in aos("run", "--cap-add", "NOTHING", "busybox:1", check=125).err


def test_what_reaches_the_host_is_refused(aos: Installation) -> None:
    refused = aos("run", "--cap-add", "SYS_ADMIN", "busybox:1", "-c", "true", check=False)
    assert refused.code == 125 and "CAP_SYS_ADMIN" in refused.err
    refused = aos(
        "run", "--cap-add", "NET_ADMIN", "--network", "host", "busybox:1", "-c", "true", check=False
    )
    assert refused.code == 125 and "CAP_NET_ADMIN" in refused.err
    refused = aos("run", "--security-opt", "seccomp=unconfined", "busybox:1", "-c", "true", check=False)
    assert refused.code == 125 and "unconfined" in refused.err


def test_a_configuration_allows_it(aos: Installation) -> None:
    free = _configured(aos, '[isolation]\nunconfined = true\ncapabilities = ["SYS_TIME"]\n')
    out = free(
        *("run", "--rm", "--security-opt", "seccomp=unconfined", "--cap-add", "SYS_TIME"),
        *("busybox:1", "-c", "cat /proc/self/status"),
    ).out
    assert _status(out)["Seccomp"] == "0"
    assert int(_status(out)["CapEff"], 16) & 1 << 25


@pytest.mark.parametrize(
    "source",
    ["/", "/etc", "/etc/shadow", "/proc", "/sys", "/dev", "/run", "/var", "/var/lib/docker", "/root"],
)
def test_the_hosts_own_is_not_mounted(aos: Installation, source: str) -> None:
    if not Path(source).exists():
        pytest.skip(f"missing: {source}")
    refused = aos("run", "-v", f"{source}:/x", "busybox:1", "-c", "true", check=False)
    assert refused.code == 125 and "cannot be mounted" in refused.err, refused


def test_nor_is_the_installation_or_a_socket_or_a_link_to_one(aos: Installation, tmp_path: Path) -> None:
    link = tmp_path / "innocent"
    link.symlink_to("/etc/shadow")
    for source in (aos.root, aos.state, aos.root.parent, aos.config.socket, link):
        refused = aos("run", "-v", f"{source}:/x", "busybox:1", "-c", "true", check=False)
        assert refused.code == 125 and "cannot be mounted" in refused.err, refused


def test_an_allow_list_of_mounts(aos: Installation, tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    narrow = _configured(aos, f'[mounts]\nallow = ["{tmp_path}/in"]\n')
    assert narrow("run", "--rm", "-v", f"{tmp_path}/in:/x", "busybox:1", "-c", "cat /x/file").out == "in"
    assert "not below" in narrow("run", "-v", f"{tmp_path}/out:/x", "busybox:1", "-c", "true", check=125).err


def test_a_read_only_root_with_memory_to_write_to(aos: Installation) -> None:
    script = "echo x > /bin/y; echo x > /tmp/y && cat /tmp/y; dd if=/dev/zero of=/tmp/z bs=1k count=2000 2>&1"
    done = aos("run", "--rm", "--read-only", "--tmpfs", "/tmp:1m", "busybox:1", "-c", script, check=False)
    assert "Read-only file system" in done.err
    assert done.out.startswith("x\n") and "No space left" in done.out


def test_ulimits(aos: Installation) -> None:
    out = aos("run", "--rm", "--ulimit", "nofile=64:128", "busybox:1", "-c", "ulimit -n; ulimit -Hn").out
    assert out.split() == ["64", "128"]
    agent = aos("run", "-d", "--ulimit", "nofile=64", "busybox:1", "-c", "sleep 1000").out.strip()
    assert aos("exec", agent, "sh", "-c", "ulimit -n").out.strip() == "64"


def test_who_goes_over_an_ulimit_ends_with_that_cause(aos: Installation) -> None:
    write = "dd if=/dev/zero of=/file bs=1k count=100; exit $?"
    aos("run", "--name", "one", "--ulimit", "fsize=4096", "busybox:1", "-c", write, check=128 + 25)
    exit = aos("inspect", "one", "-o", "json").json[0]["exit"]
    assert (exit["cause"], exit["detail"]) == ("limit", "it went over its RLIMIT_FSIZE")
    aos("run", "--name", "two", "busybox:1", "-c", "kill -XFSZ $$; exit 153", check=128 + 25)
    assert aos("inspect", "two", "-o", "json").json[0]["exit"]["cause"] == "signaled", "it has no such limit"


def test_a_secret_is_a_file_in_memory_and_nowhere_else(aos: Installation, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("correct-horse-battery\n")
    aos = replace(aos, environ={**aos.environ, "KEY_OF_TEST": "from-the-environment"})
    script = "cat /run/secrets/a; cat /run/secrets/b; env; stat -c '%a %U' /run/secrets/a; grep secrets /proc/mounts"
    out = aos(
        *("run", "--name", "keeper", "--secret", f"a={tmp_path}/token", "--secret", "b=env:KEY_OF_TEST"),
        *("busybox:1", "-c", script),
    ).out
    assert "correct-horse-battery\nfrom-the-environment" in out
    assert "400 root" in out and "tmpfs" in out
    assert out.count("correct-horse") == 1
    shown = aos("logs", "keeper").out + aos("inspect", "keeper", "-o", "json").out
    assert "correct-horse" not in shown and "from-the-env" not in shown and "***" in shown
    logs = {path for path in aos.root.rglob("*.log") if path.is_file()}  # what the agent itself wrote
    for path in aos.root.rglob("*"):
        if path.is_file() and path not in logs and not path.is_symlink():
            assert b"correct-horse" not in path.read_bytes(), path
    aos("rm", "keeper")
    aos("node", "stop")  # waits for what is being cleaned up
    assert list((aos.state / "secrets").iterdir()) == []


def test_user_ids_of_its_own(aos: Installation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine\n")
    script = "cat /proc/self/uid_map; stat -c %u /x/file /bin/busybox; echo theirs > /x/new; sleep 1000"
    agents = [
        aos("run", "-d", "--userns", "private", "-v", f"{tmp_path}:/x", "busybox:1", "-c", script).out.strip()
        for _ in range(2)
    ]
    seen = []
    for agent in agents:
        out = aos(
            "exec", agent, "sh", "-c", "cat /proc/self/uid_map; stat -c %u /x/file /bin/busybox; cat /x/file"
        ).out
        words = out.split()
        assert words[0] == "0" and words[2] == "65536" and words[3:] == ["0", "0", "mine"]
        seen.append(int(words[1]))
    assert seen[0] != seen[1] and min(seen) >= 65536
    assert (tmp_path / "new").stat().st_uid == 0  # root of the agent is root of what it was shown
    (tmp_path / "in").write_text("copied")
    os.chown(tmp_path / "in", 7, 8)
    aos("cp", "-a", tmp_path / "in", f"{agents[0]}:/in")
    assert aos("exec", agents[0], "stat", "-c", "%u %g", "/in").out.split() == ["7", "8"]
    aos("cp", "-a", f"{agents[0]}:/in", tmp_path / "back")
    assert ((tmp_path / "back").stat().st_uid, (tmp_path / "back").stat().st_gid) == (7, 8)
    aos("cp", tmp_path / "in", f"{agents[0]}:/x/copied")  # where the host's root has no number
    assert ((tmp_path / "copied").stat().st_uid, (tmp_path / "copied").read_text()) == (0, "copied")
    aos("rm", "-f", *agents)


def _ids(aos: Installation, agent: str) -> Any:
    return aos("inspect", agent, "-o", "json").json[0]["replica"][0]["user_ids"]


def test_user_ids_of_its_own_are_the_default_and_the_reason_is_told_where_not(aos: Installation) -> None:
    run = ("run", "-d", "busybox:1", "-c", "sleep 1000")
    agent = aos(*run).out.strip()
    inside = aos("exec", agent, "cat", "/proc/self/uid_map").out.split()
    given = {"first": int(inside[1]), "count": 65536}
    assert inside[0] == "0" and given["first"] >= 65536
    aos("node", "stop")
    assert _ids(aos, agent) == given, "another daemon knows it, too"
    hosts = aos(*run[:2], "--userns", "host", *run[2:]).out.strip()
    assert _ids(aos, hosts) == {"host": "as asked for"}
    sharing = aos(*run[:2], "--network", f"agent:{agent}", *run[2:]).out.strip()
    assert _ids(aos, sharing) == {"host": "it shares the network of another agent"}


def test_an_installation_demands_user_ids_of_its_own(aos: Installation) -> None:
    demanding = _configured(aos, "[isolation]\nhost_users = false\n")
    agent = demanding("run", "-d", "--userns", "auto", "busybox:1", "-c", "sleep 1000").out.strip()
    shared = demanding("run", "--network", f"agent:{agent}", "busybox:1", "-c", "true", check=125)
    assert "it shares the network" in shared.err
    assert "host's user ids" in demanding("run", "--userns", "host", "busybox:1", "-c", "true", check=125).err


def test_secrets_that_a_package_asks_for(aos: Installation, tmp_path: Path) -> None:
    (tmp_path / "Agentfile").write_text(
        """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata: {name: keeper, version: 1.0.0}
from: busybox:1
secrets: [token, {name: KEY, env: true}, {name: maybe, required: false}, {name: rc, target: /root/.rc}]
resources: {disk: 16Mi}
entrypoint:
  command: [sh, -c, "cat /run/secrets/token /root/.rc; echo $KEY; ls /run/secrets; df /"]
"""
    )
    aos("build", "-t", "keeper:1", tmp_path)
    refused = aos("run", "keeper:1", check=False)
    assert refused.code == 125 and "token, KEY, rc" in refused.err
    for name in ("token", "rc", "KEY"):
        (tmp_path / name).write_text(f"of {name}\n")
    given = [word for name in ("token", "rc", "KEY") for word in ("--secret", f"{name}={tmp_path}/{name}")]
    out = aos("run", "--rm", *given, "keeper:1").out
    assert out.startswith("of token\nof rc\nof KEY\ntoken\n")
    assert int(out.split("\n")[-2].split()[1]) < 17_000  # KiB


def test_a_disk_of_its_own_size(aos: Installation) -> None:
    script = "dd if=/dev/zero of=/fill bs=1M count=64 2>&1; i=0; rm /fill; while touch /f$i; do i=$((i+1)); done 2>/dev/null; echo files $i"
    out = aos("run", "--rm", "--disk", "16m", "busybox:1", "-c", script, timeout=60).out
    assert "No space left" in out
    assert int(out.rpartition(" ")[2]) < 5000
