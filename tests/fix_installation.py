"""An installation of AOS for one test: its own root and state, its own daemon, and nothing left behind.

installation    root and state only, empty; nothing is started
aos             the command in that installation, with the package `busybox:1` in its store
busybox_root    (session) an AOS_ROOT whose store holds `busybox:1`, built by `aos build`; copy it, never write to it
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from aos.config import Config
from traces import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REPOSITORY = Path(__file__).parent.parent
COMMAND = Path(sys.executable).parent / "aos"
TOOLS = ("runc", "conmon")


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Installation:
    """The command `aos` with a root and a state of its own: `aos("run", "busybox:1", "true")`."""

    config: Config
    environ: Mapping[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def root(self) -> Path:
        return self.config.root

    @property
    def state(self) -> Path:
        return self.config.state

    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AOS_", "NO_COLOR"))
        }
        return kept | {"AOS_ROOT": str(self.root), "AOS_STATE": str(self.state), **self.environ}

    def command(self, *words: str | os.PathLike[str]) -> list[str]:
        """The full command line; under coverage, through a launcher that measures (tests/measured_aos.py)."""
        measured = [sys.executable, "-IS", str(REPOSITORY / "tests/measured_aos.py")]
        return [*(measured if os.environ.get("COVERAGE_PROCESS_START") else [str(COMMAND)]), *map(str, words)]

    def __call__(
        self,
        *words: str | os.PathLike[str],
        check: bool | int = True,
        input: str | bytes = b"",
        timeout: float = 120,
        cwd: Path | None = None,
    ) -> Result:
        """Run `aos WORDS` to its end. `check` True wants exit code 0, a number wants that code, False any."""
        done = subprocess.run(
            self.command(*words),
            input=input.encode() if isinstance(input, str) else input,
            capture_output=True,
            timeout=timeout,
            env=self.environment(),
            cwd=cwd,
        )
        result = Result(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        wanted = 0 if check is True else check
        if check is not False and result.code != wanted:
            raise AssertionError(
                f"aos {' '.join(map(str, words))}: exit code {result.code}, not {wanted}\n{result.out}{result.err}"
            )
        return result

    def start(
        self,
        *words: str | os.PathLike[str],
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start `aos WORDS` and leave it running, at most until the installation ends."""
        process = subprocess.Popen(
            self.command(*words), env=self.environment(), stdin=stdin, stdout=stdout, stderr=stderr
        )
        self.started.append(process)
        return process

    def daemon(self) -> int:
        """The pid of the daemon that runs."""
        pid = self("node", "status", "-o", "json").json["pid"]
        assert isinstance(pid, int)
        return pid

    def kill_daemon(self) -> int:
        """kill -9 the daemon, wait until it is gone, and return the pid that it had."""
        pid = self.daemon()
        end_process(pid)
        return pid

    def end(self) -> None:
        """End what was started, remove every agent and stop the daemon."""
        for process in self.started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream and not stream.closed:
                    with contextlib.suppress(BrokenPipeError):  # what nobody had read yet
                        stream.close()
        if not self.state.exists():
            return
        self("rm", "--force", *[agent["agent"] for agent in self("ps", "-a", "-o", "json").json], check=False)
        self("node", "stop")


def end_process(pid: int) -> None:
    """kill -9 and wait until it is gone; fine when it has gone already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor) as process:
        signal.pidfd_send_signal(process.fileno(), signal.SIGKILL)
        if not select.select([process], [], [], 10)[0]:
            raise AssertionError(f"process {pid} does not die")


def daemon_pids(config: Config) -> list[int]:
    """The daemons of an installation, found without asking one: at most one, unless two race for the socket.

    What a daemon starts shows the daemon's command line until it has executed its own: it is no daemon, and will soon be
    a conmon, which nobody may kill by mistake."""
    wanted = b"AOS_STATE=" + os.fsencode(config.state)
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                is_daemon = b"serve_node" in (entry / "cmdline").read_bytes()
                if is_daemon and wanted in (entry / "environ").read_bytes().split(bytes(1)):
                    stat = (entry / "stat").read_bytes()
                    parents[int(entry.name)] = int(stat.rpartition(b") ")[2].split()[1])
            except OSError:
                continue
    return [pid for pid, parent in parents.items() if parent not in parents]


def new_installation() -> Installation:
    """An empty one under a short path: a socket's path holds at most 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))  # not tmp_path: it is too long
    return Installation(Config(root=home / "root", state=home / "state"))


@pytest.fixture
def installation() -> Iterator[Installation]:
    made = new_installation()
    yield made
    shutil.rmtree(made.root.parent)


@pytest.fixture(scope="session")
def busybox_root() -> Iterator[Path]:
    """Build `busybox:1` from nothing but a static busybox; commands are links to it."""
    requires(*TOOLS, "busybox")
    made = new_installation()
    context = made.root.parent / "context"
    context.mkdir()
    busybox = shutil.which("busybox")
    assert busybox
    binary = context / "bin"
    binary.mkdir()
    shutil.copy2(busybox, binary / "busybox")
    for name in subprocess.run(
        [busybox, "--list"], check=True, capture_output=True, text=True
    ).stdout.split():
        if name != "busybox":
            (binary / name).symlink_to("busybox")
    (context / "etc").mkdir()
    (context / "etc/passwd").write_text(
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    )
    (context / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (context / "Agentfile").write_text(
        """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata: {name: busybox, version: 1.0.0}
from: scratch
steps:
  - copy: {src: bin, dest: /bin}
  - copy: {src: etc, dest: /etc}
entrypoint:
  command: [/bin/sh]
"""
    )
    made("build", "-t", "busybox:1", context)
    yield made.root
    shutil.rmtree(made.root.parent)


@pytest.fixture
def aos(busybox_root: Path, installation: Installation) -> Iterator[Installation]:
    """The command, ready to run agents; afterwards nothing of it may be left on the host."""
    requires_root()
    shutil.copytree(busybox_root, installation.root, symlinks=True)
    before = Traces.of(installation.config)
    yield installation
    installation.end()
    Traces.of(installation.config).settle(installation.config, before)


def requires(*tools: str) -> None:
    """Skip, naming what is missing; `make test` installs all of it."""
    missing = [tool for tool in tools if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)} (make test installs it)")


def crun_of_this_host(directory: Path) -> str:
    """A path of crun. It refuses hybrid hierarchies: there it gets a mount namespace without the unified one."""
    requires("crun")
    path = shutil.which("crun") or "crun"
    if not Path("/sys/fs/cgroup/unified/cgroup.procs").exists():
        return path
    script = directory / "crun"
    script.write_text(
        "#!/bin/sh\n"
        f'exec unshare --mount sh -c \'umount /sys/fs/cgroup/unified; exec "$0" "$@"\' {path} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def requires_root() -> None:
    if os.getuid() != 0:
        pytest.skip("needs root (sudo make test)")
    requires(*TOOLS)
