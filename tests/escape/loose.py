"""Sandboxes to break out of: as they are, and loosened until the attempts succeed; and a host worth reaching."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import pty
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.compose.runtimes import bridge_network
from aos.config import Config
from aos.content.store import ContentStore
from aos.ids import SandboxId
from aos.package import load_package
from aos.registry.local import LocalRegistry
from aos.runtime.backends.oci import Runc
from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
from aos.runtime.capabilities import ALL
from aos.runtime.spec import AgentSpec, Confinement, Mount, ProcessSpec, Rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aos.runtime.backends.supervised.tool import Tool

__all__ = ["Host", "Loose", "a_host", "held_here", "run_attempts", "try_on_host"]

_ATTEMPTS = Path(__file__).parent / "attempts.py"
_PYTHON = (Path("/usr"), Path("/lib"), Path("/lib64"), Path(sys.base_prefix))


def held_here() -> list[str]:
    """The capabilities that this process could give away: a test host may lack some."""
    text = Path("/proc/self/status").read_text()
    found = re.search(r"^CapBnd:\s*(\w+)", text, re.MULTILINE)
    assert found
    bits = int(found[1], 16)
    return [name for name in ALL if bits & 1 << _NUMBERS[name]]


_ORDER = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
_NUMBERS = {f"CAP_{name}": number for number, name in enumerate(_ORDER.split())}
"""include/uapi/linux/capability.h"""


class Loose(Runc):
    """runc with everything that AOS confines by taken away: what `docker run --privileged` gives, and more."""

    def __init__(
        self,
        *,
        shared: Sequence[str] = (),
        network: str = "",
        terminal: str = "",
        masks: bool = False,
    ) -> None:
        """`masks`: masked and read-only paths stay as they are; `shared`: namespaces that are the host's; `network`: the path of another one; `terminal`: of the host."""
        super().__init__("runc")
        self._masks = masks
        self._shared, self._network, self._terminal = (*shared, "cgroup"), network, terminal

    def configure(self, config: dict[str, Any], spec: AgentSpec) -> None:
        process, linux = config["process"], config["linux"]
        held = held_here()
        process["capabilities"] = dict.fromkeys(
            ("bounding", "effective", "permitted", "inheritable", "ambient"), held
        )
        process["noNewPrivileges"] = False
        linux.pop("seccomp", None)
        if not self._masks:
            linux["maskedPaths"] = linux["readonlyPaths"] = []
        linux["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] not in self._shared]
        for one in linux["namespaces"]:
            if one["type"] == "network" and self._network:
                one["path"] = self._network
        for mount in config["mounts"]:
            if mount["destination"].startswith("/sys"):
                mount["options"] = [option for option in mount["options"] if option != "ro"]
            if mount["destination"] == "/host-tty":
                mount |= {"source": self._terminal, "options": ["bind"]}


@dataclass(slots=True)
class Host:
    """What an attempt wants to reach."""

    home: Path
    config: Config
    content: ContentStore
    spec: AgentSpec
    facts: dict[str, Any]
    terminal: str
    metadata: str
    """The path of a network namespace with a metadata service."""
    visitor: Path
    found: dict[tuple[str, ...], dict[str, tuple[bool | None, str]]] = field(default_factory=dict)


@contextlib.contextmanager
def a_host(busybox_root: Path) -> Iterator[Host]:
    home = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))
    config = Config(home / "root", home / "state")
    shutil.copytree(busybox_root, config.root, symlinks=True)
    content = ContentStore(config.root / "content")
    digest = LocalRegistry(config.root / "registry", content).resolve("busybox:1")
    layers = load_package(content.blobs, digest).layers
    (home / "marker").touch()
    (home / "read-only").mkdir()
    token = f"victim-{secrets.token_hex(6)}"
    visitor = home / "aos-visitor"
    shutil.copy2(shutil.which("sleep") or "/bin/sleep", visitor)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home)
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", token])
        stack.callback(sleeper.wait)
        stack.callback(sleeper.kill)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{token}")
        abstract.listen()
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        leading, following = pty.openpty()
        stack.callback(os.close, leading)
        stack.callback(os.close, following)
        terminal = os.ttyname(following)
        key = _add_key(token)
        stack.callback(_syscall, _KEYCTL, 9, key, -4)  # KEYCTL_UNLINK, from the user keyring
        metadata = _metadata_service(stack, f"aos-{token[-6:]}")
        mounts = [Mount("bind", str(path), path, read_only=True) for path in _PYTHON if path.exists()]
        mounts += [
            Mount("bind", "/attempts", _ATTEMPTS.parent, read_only=True),
            Mount("bind", "/read-only", home / "read-only", read_only=True),
        ]
        yield Host(
            home,
            config,
            content,
            AgentSpec(ProcessSpec(("true",)), Rootfs(layers), mounts=tuple(mounts)),
            {
                "victim": token,
                "abstract": token,
                "key": token,
                "port": port.getsockname()[1],
                "outside": str(home / "marker"),
                "inside": "/bin/busybox",
                "jail": False,
                "disk": _a_disk(),
                "hierarchies": _hierarchies(),
                "visitor": visitor.name,
            },
            terminal,
            metadata,
            visitor,
        )


_ADD_KEY, _KEYCTL = (217, 219) if os.uname().machine == "aarch64" else (248, 250)


def _syscall(number: int, *arguments: object) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return int(ctypes.CDLL(None).syscall(ctypes.c_long(number), *words))


def _add_key(name: str) -> int:
    """A key in the user keyring of the host's root."""
    return _syscall(_ADD_KEY, b"user", name.encode(), b"value", 5, -4)


def _metadata_service(stack: contextlib.ExitStack, name: str) -> str:
    """169.254.169.254 in a network namespace of the test's own; empty where there is no ip(8)."""
    ip = shutil.which("ip")
    if ip is None:
        return ""
    subprocess.run([ip, "netns", "add", name], check=True)
    stack.callback(subprocess.run, [ip, "netns", "del", name], check=True)
    inside = [ip, "netns", "exec", name]
    subprocess.run([*inside, ip, "link", "set", "lo", "up"], check=True)
    subprocess.run([*inside, ip, "addr", "add", "169.254.169.254/32", "dev", "lo"], check=True)
    code = "import socket; s = socket.create_server(('169.254.169.254', 80)); print(flush=True); s.accept(); s.accept()"
    server = subprocess.Popen([*inside, sys.executable, "-c", code], stdout=subprocess.PIPE)
    stack.callback(server.wait)
    stack.callback(server.kill)
    assert server.stdout is not None
    stack.callback(server.stdout.close)
    assert server.stdout.readline()
    return f"/run/netns/{name}"


def _a_disk() -> tuple[int, int]:
    """A block device of this host."""
    for path in sorted(Path("/sys/block").iterdir(), key=lambda path: path.name.startswith(("loop", "ram"))):
        major, minor = (path / "dev").read_text().strip().split(":")
        if int((path / "size").read_text()) > 0:
            return int(major), int(minor)
    return 7, 0


def _hierarchies() -> list[str]:
    found = re.findall(
        r" - cgroup \S+ \S*?\b(memory|pids|cpuset|devices)\b", Path("/proc/self/mountinfo").read_text()
    )
    return sorted(set(found))


def run_attempts(
    host: Host,
    tool: Tool,
    names: Sequence[str],
    *,
    confinement: Confinement | None = None,
    prefix: str = "",
    jail: bool = False,
    terminal: bool = False,
) -> dict[str, tuple[bool | None, str]]:
    """All of them in one sandbox: whether each got through (None: it is broken), and its words. `prefix`: what the
    shell does before."""
    out = Path(tempfile.mkdtemp(dir=host.home))
    (out / "facts.json").write_text(json.dumps({**host.facts, "jail": jail}))
    script = f"{prefix}exec {sys.base_prefix}/bin/python3 -IS /attempts/attempts.py /out/facts.json /out/results.json {' '.join(names)}"
    mounts = [*host.spec.mounts, Mount("bind", "/out", out)]
    if terminal:
        mounts.append(Mount("bind", "/host-tty", Path(host.terminal)))
    spec = AgentSpec(
        ProcessSpec(("sh", "-c", script)),
        host.spec.rootfs,
        mounts=tuple(mounts),
        confinement=confinement or Confinement(),
    )
    config = SupervisedConfig(host.config.root, host.config.state, host.config.installation)
    runtime = SupervisedRuntime(config, tool, host.content, bridge_network(host.config))

    async def run() -> None:
        id = SandboxId(f"escape-{secrets.token_hex(6)}")
        try:
            made = await runtime.create(id, spec)
            await runtime.start(id)
            ended = asyncio.create_task(runtime.wait(id))
            if "overwrite_runtime" in names and made.pid is not None:
                await _visit(host, out, made.pid, ended)
            status = await asyncio.wait_for(ended, 120)
            assert status.code == 0, (status, (await runtime.logs(id)).read_text())
        finally:
            await runtime.delete(id, force=True)

    asyncio.run(run())
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    assert not list((out / "propagated").glob("*")) and not os.path.ismount(out / "propagated")
    return {name: (through, words) for name, (through, words) in results.items()}


def try_on_host(host: Host, name: str) -> tuple[bool | None, str]:
    """An attempt without any sandbox: what the host refuses its own root, no sandbox can be blamed for."""
    out = Path(tempfile.mkdtemp(dir=host.home))
    (out / "facts.json").write_text(json.dumps(host.facts))
    results = out / "results.json"
    subprocess.run([sys.executable, "-IS", _ATTEMPTS, out / "facts.json", results, name], check=True)
    through, words = json.loads(results.read_text())[name]
    return through, words


async def _visit(host: Host, out: Path, pid: int, ended: asyncio.Task[Any]) -> None:
    """A process of the host comes into the sandbox's pid namespace, as a runtime's exec does."""
    while not (out / "ready").exists() and not ended.done():
        await asyncio.sleep(0.05)
    command = ["nsenter", "--target", str(pid), "--pid", "--", str(host.visitor), "2"]
    visitor = await asyncio.create_subprocess_exec(*command)
    await visitor.wait()
