"""Our contender: an installation of its own with one package, and what is measured about its processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Installation", "busybox_tree", "proportional_memory"]

COMMAND = Path(sys.executable).parent / "aos"

AGENTFILE = """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata: {name: busybox, version: 1.0.0}
from: scratch
steps:
  - copy: {src: tree, dest: /}
entrypoint:
  command: [/bin/sh]
"""


def busybox_tree(directory: Path) -> Path:
    """Make the root file system that all contenders use: a static busybox and links to it."""
    binary = directory / "bin"
    binary.mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox, "busybox is missing: make bench installs it"
    shutil.copy2(busybox, binary / "busybox")
    for name in ("true", "sh", "sleep"):
        (binary / name).symlink_to("busybox")
    return directory


@dataclass(frozen=True, slots=True)
class Installation:
    home: Path
    settings: str = ""
    """Its configuration, where that is not the default."""

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AOS_")}
        kept |= {"AOS_ROOT": str(self.home / "root"), "AOS_STATE": str(self.home / "state")}
        return kept | ({"AOS_CONFIG": str(self.home / "aos.toml")} if self.settings else {})

    def argv(self, *words: str) -> tuple[str, ...]:
        return (str(COMMAND), *words)

    def call(self, *words: str) -> str:
        """Run `aos WORDS`; it must succeed."""
        done = subprocess.run(
            self.argv(*words), env=self.environ, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(f"aos {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def build_busybox(self) -> None:
        """Put `busybox:1` into the store: the same tree that the peers have."""
        context = self.home / "context"
        busybox_tree(context / "tree")
        if self.settings:
            (self.home / "aos.toml").write_text(self.settings)
        (context / "Agentfile").write_text(AGENTFILE)
        self.call("build", "-t", "busybox:1", str(context))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.call("node", "status", "-o", "json"))
        return status

    def stop_node(self) -> None:
        self.call("node", "stop")

    def start(self, name: str, *options: str) -> None:
        """An agent that sleeps."""
        words = ("--name", name, *options, "--entrypoint", "/bin/sleep", "busybox:1", "1000000")
        self.call("run", "-d", *words)

    def true(self, *options: str) -> tuple[str, ...]:
        """What runs an agent that does nothing, and removes it."""
        return self.argv("run", "--rm", *options, "--entrypoint", "/bin/true", "busybox:1")

    def configuration(self, *words: str) -> dict[str, Any]:
        """That of a sandbox, as the OCI runtime gets it."""
        self.call(
            "run", "-d", "--name", "shape", *words, "--entrypoint", "/bin/sleep", "busybox:1", "1000000"
        )
        [file] = (self.home / "root/sandboxes/oci").glob("*/config.json")
        config: dict[str, Any] = json.loads(file.read_text())
        self.remove("shape")
        return config

    def remove(self, *names: str) -> None:
        self.call("rm", "--force", *names)

    def end(self) -> None:
        agents = json.loads(self.call("ps", "-a", "-o", "json"))
        if agents:
            self.remove(*[agent["agent"] for agent in agents])
        self.stop_node()

    def conmon_pids(self) -> list[int]:
        """The supervisors of this installation's sandboxes."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"conmon" in words.split(b"\0")[0] and os.fsencode(self.home) in words:
                    found.append(int(entry.name))
        return found


def proportional_memory(pid: int) -> int:
    """Bytes of a process, shared pages counted by share (PSS of /proc/PID/smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Pss in /proc/{pid}/smaps_rollup")


def resident_memory(pid: int) -> int:
    """Bytes resident (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no VmRSS in /proc/{pid}/status")


def kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists() and ") Z" not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.001)
