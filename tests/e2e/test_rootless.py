"""AOS as an ordinary user has it: builds, agents, limits and networks, with a user made for it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest

from aos.content.store import ContentStore
from aos.registry.local import LocalRegistry
from fix_installation import REPOSITORY, requires

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fix_rootless import OrdinaryUser

pytestmark = pytest.mark.root
T = TypeVar("T")

OWNED = """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata: {name: owned, version: 1.0.0}
from: busybox:1
steps:
  - run: mkdir -m 1777 /shared && echo text > /shared/file && chown 33:44 /shared/file && mkdir /d && touch /d/old
  - run: rm /etc/passwd && rm -r /d && mkdir /d && touch /d/new
"""


@pytest.fixture(scope="module")
def user(ordinary_user: OrdinaryUser, busybox_root: Path) -> OrdinaryUser:
    """With the package `busybox:1`, which the user has built."""
    context = ordinary_user.home / "context"
    shutil.copytree(busybox_root.parent / "context", context, symlinks=True)
    ordinary_user("build", "-t", "busybox:1", context)
    return ordinary_user


def test_a_build_gives_what_root_gets(user: OrdinaryUser, busybox_root: Path) -> None:
    roots = LocalRegistry(busybox_root / "registry", ContentStore(busybox_root / "content"))
    built = user("packages", "inspect", "busybox:1", "-o", "json").json
    assert built["digest"] == roots.resolve("busybox:1")


def test_owners_and_whiteouts_of_a_layer(user: OrdinaryUser) -> None:
    context = user.home / "owned"
    context.mkdir()
    (context / "Agentfile").write_text(OWNED)
    user("build", "-t", "owned:1", context)
    script = "stat -c '%u:%g %a %n' /shared /shared/file; ls /d /etc/passwd"
    lines = user("run", "--rm", "owned:1", "-c", script, check=1).out.splitlines()
    assert lines == ["0:0 1777 /shared", "33:44 644 /shared/file", "/d:", "new"]
    nobody_else = {user.uid, *user.subordinate}
    owners = set()
    for directory, names, files in os.walk(user.root):
        for name in ("", *names, *files):
            with contextlib.suppress(FileNotFoundError):  # a sandbox that is just being removed
                owners.add(Path(directory, name).lstat().st_uid)
    assert owners <= nobody_else
    assert user.subordinate[32] in owners  # 33 inside
    for private in (user.root, user.state, user.state / "kernel"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((user.state / "kernel/kernel.sock").stat().st_mode) == 0o600


def test_an_id_beyond_the_range_is_refused(user: OrdinaryUser) -> None:
    context = user.home / "far"
    context.mkdir()
    (context / "file").touch()
    far = OWNED.partition("steps:")[0] + "steps:\n  - copy: {src: file, dest: /file, owner: '70000:0'}\n"
    (context / "Agentfile").write_text(far)
    user("build", "-t", "far:1", context)
    refused = user("run", "--rm", "far:1", check=125)
    assert "belongs to 70000:0, an id that this user has not" in refused.err
    assert "/etc/subuid" in refused.err


def test_device_nodes_of_a_layer_are_left_out(user: OrdinaryUser) -> None:
    script = """
import io, os, sys, tarfile
from aos.content.protocol import IdMap
from aos.content.unpack import unpack

made = io.BytesIO()
with tarfile.open(fileobj=made, mode="w") as archive:
    for name, kind in (("null", tarfile.CHRTYPE), ("pipe", tarfile.FIFOTYPE), ("file", tarfile.REGTYPE)):
        entry = tarfile.TarInfo(name)
        entry.type, entry.devmajor, entry.devminor, entry.uid = kind, 1, 3, 5
        archive.addfile(entry)
os.mkdir(sys.argv[1])
unpack(iter([made.getvalue()]), os.open(sys.argv[1], os.O_RDONLY), IdMap.identity())
print(sorted(os.listdir(sys.argv[1])), os.stat(sys.argv[1] + "/file").st_uid)
"""
    python = next(
        path for path in (user.aos.with_name("python3"), user.aos.with_name("python")) if path.exists()
    )
    target = user.home / "run/unpacked"
    assert user("unshare", python, "-c", script, target).out == "['file', 'pipe'] 5\n"
    user("unshare", "rm", "-rf", target)


def test_without_a_runtime_directory(user: OrdinaryUser) -> None:
    lost = replace(user, environ={"XDG_RUNTIME_DIR": ""})
    refused = lost("build", user.home / "context", check=5)
    assert f"/run/user/{user.uid}/aos" in refused.err
    assert "AOS_STATE" in refused.err


def test_exit_codes_and_streams(user: OrdinaryUser) -> None:
    assert user("run", "--rm", "busybox:1", "-c", "exit 7", check=7).code == 7
    assert user("run", "--rm", "-i", "busybox:1", "-c", "cat; id -u", input="words\n").out == "words\n0\n"
    assert user("run", "--rm", "busybox:1", "-c", "kill -TERM $$", check=False).code in (143, 0)
    assert user("run", "--rm", "busybox:1", "-c", "exec /nothing", check=False).code == 127


def test_a_terminal(user: OrdinaryUser) -> None:
    ours, theirs = pty.openpty()
    process = user.start(
        "run", "--rm", "-it", "busybox:1", "-c", "tty && exit 3", stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 1024):
            said += piece
    os.close(ours)
    assert process.wait(30) == 3
    assert b"/dev/pts/" in said or b"/dev/console" in said


def test_an_agent_lives_through_the_death_of_its_daemon(user: OrdinaryUser) -> None:
    user(
        "run",
        "-d",
        "--name",
        "lives",
        "busybox:1",
        "-c",
        "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done",
    )
    assert user("logs", "lives").out == "up\n"
    assert user("exec", "lives", "id", "-u").out == "0\n"
    before = user.kill_daemon()
    assert user("exec", "-i", "lives", "cat", input="still\n").out == "still\n"
    assert user.daemon() != before
    assert "sleep" in user("top", "lives").out
    user("stop", "lives")
    assert user("wait", "lives").out.strip() == "9"
    user("rm", "lives")


def test_a_run_out_of_a_pool(user: OrdinaryUser) -> None:
    user("pool", "set", "-n", "1", "--wait", "busybox:1", "-c", "hostname")
    assert user("run", "--rm", "--name", "pooled", "busybox:1", "-c", "hostname").out == "pooled\n"
    assert user("pool", "ls", "-o", "json").json[0]["taken"] == 1
    user("pool", "rm", "busybox:1")


def test_the_daemon_and_a_build_are_in_one_namespace(user: OrdinaryUser) -> None:
    theirs = str(Path(f"/proc/{user.daemon()}/ns/user").readlink())
    assert user("unshare", "readlink", "/proc/self/ns/user").out.strip() == theirs
    assert user("unshare", "id", "-u").out == "0\n"


def test_files_in_a_mounted_directory(user: OrdinaryUser) -> None:
    data = user.home / "data"
    subprocess.run(user.as_user("mkdir", data), env=user.environment(), check=True)
    script = "echo mine > /data/mine; mkdir /data/other; touch /data/other/file; chown -R 33 /data/other"
    user("run", "--rm", "-v", f"{data}:/data", "busybox:1", "-c", script)
    assert (data / "mine").stat().st_uid == user.uid
    assert (data / "other/file").stat().st_uid == user.subordinate[32]
    refused = subprocess.run(
        user.as_user("rm", "-rf", data), env=user.environment(), capture_output=True, check=False
    )
    assert refused.returncode != 0
    user("unshare", "rm", "-rf", data)
    assert not data.exists()


def test_copied_files_have_the_owners_that_they_have_inside(user: OrdinaryUser) -> None:
    user(
        "run", "-d", "--name", "copied", "busybox:1", "-c", "echo text > /file; chown 1001:7 /file; sleep 100"
    )
    _until(lambda: user("exec", "copied", "cat", "/file", check=False).out == "text\n" or _fail())
    out, kept = user.home / "run/out", user.home / "run/kept"
    user("cp", "copied:/file", out)
    user("cp", "--archive", "copied:/file", kept)
    assert out.stat().st_uid == user.uid
    assert kept.stat().st_uid == user.subordinate[1000]
    user("cp", "--archive", kept, "copied:/back")
    assert user("exec", "copied", "stat", "-c", "%u:%g", "/back").out == "1001:7\n"
    user("rm", "--force", "copied")
    user("unshare", "rm", out, kept)


def test_limits_are_refused_without_delegation_and_hold_with_it(user: OrdinaryUser) -> None:
    refused = user("run", "--rm", "--memory", "64m", "busybox:1", "-c", "true", check=125)
    assert "was given no control groups" in refused.err
    user("run", "-d", "--name", "unpausable", "busybox:1", "-c", "sleep 100")
    assert "was given no control groups" in user("pause", "unpausable", check=5).err
    assert user("stats", "--no-stream", "-o", "json", "unpausable").json
    user("rm", "--force", "unpausable")
    user("node", "stop")
    with _delegated(user) as there:
        done = there(
            "run",
            "--rm",
            "--memory",
            "32m",
            "busybox:1",
            "-c",
            "dd if=/dev/zero of=/dev/null bs=100M count=1",
            check=False,
        )
        assert done.code == 137, done.err
        few = there(
            "run",
            "--rm",
            "--pids",
            "5",
            "busybox:1",
            "-c",
            "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait",
            check=False,
        )
        assert "fork" in few.err, few.err
        there("run", "-d", "--name", "pausable", "--cpus", "0.5", "busybox:1", "-c", "sleep 100")
        there("pause", "pausable")
        there("unpause", "pausable")
        there("rm", "--force", "pausable")
        there("node", "stop")


@contextlib.contextmanager
def _delegated(user: OrdinaryUser) -> Iterator[OrdinaryUser]:
    """The user with control groups, in every hierarchy of the host."""
    groups = []
    top = Path("/sys/fs/cgroup")
    hierarchies = (
        [top]
        if (top / "cgroup.procs").exists()
        else sorted({file.parent.resolve() for file in top.glob("*/cgroup.procs")})
    )
    for hierarchy in hierarchies:
        group = hierarchy / user.name
        group.mkdir()
        groups.append(group)
        for name in ("cpuset.cpus", "cpuset.mems"):  # of version 1: empty until somebody writes
            if (group / name).exists():
                (group / name).write_text((hierarchy / name).read_text())
        if (group / "cgroup.clone_children").exists():
            (group / "cgroup.clone_children").write_text("1")
        for file in (group, *(group / name for name in ("cgroup.procs", "tasks", "cgroup.subtree_control"))):
            if file.exists():
                os.chown(file, user.uid, user.uid)
    try:
        yield replace(user, groups=[str(group / "session") for group in _sessions(groups, user)])
    finally:
        user("node", "stop", check=False)
        for group in groups:
            for child in sorted(group.rglob("*/"), reverse=True):
                if child.is_dir():
                    with contextlib.suppress(OSError):
                        child.rmdir()
            _remove_soon(group)


def _sessions(groups: list[Path], user: OrdinaryUser) -> list[Path]:
    for group in groups:
        session = group / "session"
        session.mkdir()
        for file in (session, *(session / name for name in ("cgroup.procs", "tasks"))):
            if file.exists():
                os.chown(file, user.uid, user.uid)
    return groups


def _remove_soon(group: Path) -> None:
    for _ in range(250):
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.02)
    group.rmdir()


SERVER = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello\\n' | nc -l -p 80; done"
FROM_ELSEWHERE = """
import socket
with socket.create_server(("", 8080)) as server:
    while True:
        with server.accept()[0] as client:
            client.sendall(b"from elsewhere\\n")
"""
ASK = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} {}"


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A server on a host of its own, at a public address (RFC 5737); a link leads there from here."""
    requires("ip")
    name = f"aosr{os.getpid() % 10000}"
    commands = (
        f"ip netns add {name}",
        f"ip link add {name}a type veth peer name {name}b netns {name}",
        f"ip address add 198.51.100.1/24 dev {name}a",
        f"ip link set {name}a up",
        f"ip -n {name} address add 198.51.100.2/24 dev {name}b",
        f"ip -n {name} link set {name}b up",
    )
    server = None
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        server = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", FROM_ELSEWHERE])
        _until(lambda: socket.create_connection(("198.51.100.2", 8080), 1).close())
        yield "198.51.100.2"
    finally:
        if server is not None:
            server.kill()
            server.wait()
        subprocess.run(["ip", "link", "delete", f"{name}a"], check=False)
        subprocess.run(["ip", "netns", "delete", name], check=False)


def test_a_network(user: OrdinaryUser, elsewhere: str) -> None:
    requires("slirp4netns")
    user(
        "run", "-d", "--name", "web", "--network", "bridge", "-p", "127.0.0.1:0:80", "busybox:1", "-c", SERVER
    )
    port = _published(user)
    assert _until(lambda: _ask(port)).endswith(b"hello\n")
    assert user("exec", "web", "sh", "-c", ASK.format(elsewhere, 8080)).out == "from elsewhere\n"
    with socket.create_server(("", 0)) as ours:
        number = ours.getsockname()[1]
        for address in ("198.51.100.1", "169.254.169.254", "10.0.2.2"):  # the host's, metadata, slirp4netns's
            assert user("exec", "web", "sh", "-c", ASK.format(address, number), check=1).out == ""
        # One that the host gets while the network is there.
        subprocess.run(["ip", "address", "add", "203.0.113.7/32", "dev", _link()], check=True)
        _until(lambda: _refused(user, "203.0.113.7", number))
    events = user("events").out
    assert "network.refused" in events
    assert "destination=169.254.169.254" in events

    user.kill_daemon()
    assert _ask(port).endswith(b"hello\n")  # without a daemon
    assert user(
        "run", "--rm", "--network", "agent:web", "busybox:1", "-c", ASK.format("127.0.0.1", 80)
    ).out.endswith("hello\n")
    taken = user(
        "run",
        "--rm",
        "--network",
        "bridge",
        "-p",
        f"127.0.0.1:{port}:80",
        "busybox:1",
        "-c",
        "true",
        check=125,
    )
    assert "another agent has it" in taken.err

    _kill_uplink(user)
    user(
        "run", "--rm", "--network", "bridge", "busybox:1", "-c", ASK.format(elsewhere, 8080)
    )  # makes it anew
    assert _ask(port).endswith(b"hello\n")
    note = (
        user.state / "network/uplink.json"
    )  # as if the daemon had been killed before it noted the one there is
    another = note.with_name("another")  # in its place at once: the last one's removal may read it
    another.write_text(json.dumps(json.loads(note.read_bytes()) | {"slirp": 1}))
    another.replace(note)
    user(
        "run", "--rm", "--network", "bridge", "busybox:1", "-c", ASK.format(elsewhere, 8080)
    )  # makes it anew
    assert _ask(port).endswith(b"hello\n")
    user("rm", "--force", "web")
    user("node", "stop")
    user.settle()


def _link() -> str:
    return f"aosr{os.getpid() % 10000}a"


def _refused(user: OrdinaryUser, address: str, port: int) -> None:
    done = user("exec", "web", "sh", "-c", ASK.format(address, port), check=False)
    if done.code != 1 or "can't connect" not in done.err:
        raise OSError(f"{address} is reached: {done}")


def _published(user: OrdinaryUser) -> int:
    (lease,) = user.root.glob("sandboxes/*/*/network.json")
    return int(json.loads(lease.read_bytes())["ports"][0].rpartition(":")[0].rpartition(":")[2])


def _kill_uplink(user: OrdinaryUser) -> None:
    (pid,) = [pid for pid, words in user.processes().items() if "slirp4netns" in words]
    os.kill(pid, 9)


def _ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := client.recv(1024):
            answer += piece
    if not answer:
        raise OSError("no answer yet")
    return answer


def _fail() -> NoReturn:
    raise OSError("not yet")


def _until(attempt: Callable[[], T]) -> T:
    """What an attempt gives once it does not fail any more, within ten seconds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_user_without_subordinate_ids_hears_what_to_do(user: OrdinaryUser) -> None:
    user("node", "stop", check=False)
    user.settle()
    (user.state / "user-namespace").unlink()  # a process that nobody has waited for keeps the one there was
    ids = f"{user.subordinate.start}-{user.subordinate.stop - 1}"
    subprocess.run(["usermod", "--del-subuids", ids, user.name], check=True)
    try:
        for words in (("build", user.home / "context"), ("run", "busybox:1")):
            refused = user(*words, check=False)
            assert refused.code in (5, 125)
            assert "no subordinate uids" in refused.err
            assert "usermod --add-subuids" in refused.err
        found = {check["name"]: check for check in user("doctor", "-o", "json", check=1).json["checks"]}
        assert found["subordinate uids"]["status"] == "fail"
        assert found["subordinate gids"]["status"] == "ok"
    finally:
        subprocess.run(["usermod", "--add-subuids", ids, user.name], check=True)
    user("run", "--rm", "busybox:1", "-c", "true")


def test_what_a_killed_build_leaves_the_next_one_removes(user: OrdinaryUser) -> None:
    context = user.home / "slow"
    context.mkdir()
    slow = OWNED.partition("steps:")[0] + "steps:\n  - run: chown 33 /bin && exec sleep 321\n"
    (context / "Agentfile").write_text(slow)
    build = user.start("build", context)
    _until(lambda: _sleeping(user) or _fail())
    build.kill()
    build.wait()
    (context / "Agentfile").write_text(slow.replace("exec sleep 321", "true"))
    user("build", context)
    assert not _sleeping(user)
    assert list(user.root.glob("build/work/*")) == []
    assert list(user.root.glob("sandboxes/*/*")) == []


def _sleeping(user: OrdinaryUser) -> bool:
    return any("sleep 321" in words and "sh -c" not in words for words in user.processes().values())


def test_gvisor(user: OrdinaryUser) -> None:
    requires("runsc")
    runsc = shutil.which("runsc")
    assert runsc is not None
    shutil.copy2(runsc, user.home / "run/runsc")  # where it is may be closed to the user
    (user.home / "run/runsc").chmod(0o755)
    file = user.home / "gvisor.toml"
    file.write_text(f'[runtime]\ngvisor = "{user.home}/run/runsc"\n')
    user("node", "stop", check=False)
    with_it = replace(user, environ={"AOS_CONFIG": str(file)})
    done = with_it(
        "run",
        "--rm",
        "--runtime",
        "gvisor",
        "busybox:1",
        "-c",
        "dmesg | grep -c gVisor; id -u; exit 4",
        check=4,
    )
    assert done.out.splitlines()[-1] == "0"
    with_it("node", "stop")


def test_hello(user: OrdinaryUser) -> None:
    requires("mmdebstrap")
    context = user.home / "hello"
    shutil.copytree(REPOSITORY / "examples/hello", context)
    user("build", "-t", "hello:1", context, timeout=600)
    assert "Hello, world" in user("run", "--rm", "hello:1").out


def test_prune_leaves_nothing(user: OrdinaryUser) -> None:
    user("run", "busybox:1", "-c", "mkdir /made && chown 33 /made", check=False)
    user("prune", "--all", "--force", check=False)
    user("node", "stop")
    user.settle()
    assert list(user.root.glob("sandboxes/*/*")) == []
