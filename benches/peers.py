"""The peers, each started privately: own root, state and sockets, the same runc, the same root file system."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Buildah", "Containerd", "Podman", "Runc", "buildah", "containerd", "podman"]

RUNC = shutil.which("runc", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or "runc"


def _call(argv: Sequence[str]) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


@dataclass(frozen=True, slots=True)
class Runc:
    """Bare runc, or another OCI runtime: the lower bound, and no supervision at all."""

    home: Path
    rootfs: Path
    program: str = RUNC
    options: tuple[str, ...] = ()
    """What stands before the verb, beside the place of its state."""

    @property
    def _base(self) -> tuple[str, ...]:
        return (self.program, *self.options, "--root", str(self.home / "state"))

    def bundle(self, name: str, args: Sequence[str], config: dict[str, Any] | None = None) -> Path:
        """Write a bundle as `runc spec` makes it, or with another's configuration, without a terminal, for these
        arguments."""
        directory = self.home / name
        directory.mkdir(parents=True)
        _call([RUNC, "spec", "--bundle", str(directory)])
        file = directory / "config.json"
        if config is None:
            config = json.loads(file.read_text())
        assert config is not None
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "bind"]
        config["linux"].pop("cgroupsPath", None)
        config["process"]["terminal"] = False
        config["process"]["args"] = list(args)
        config["root"]["path"] = str(self.rootfs)
        file.write_text(json.dumps(config))
        return directory

    def run(self, bundle: Path, name: str) -> tuple[str, ...]:
        return (*self._base, "run", "--bundle", str(bundle), name)

    def start(self, name: str, args: Sequence[str]) -> None:
        bundle = self.bundle(f"bundle-{name}", args)
        subprocess.run(  # its output is the container's: a pipe would be kept open
            [*self._base, "run", "--detach", "--bundle", str(bundle), name],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def exec(self, name: str, *args: str) -> tuple[str, ...]:
        return (*self._base, "exec", name, *args)

    def remove(self, name: str) -> None:
        _call([*self._base, "delete", "--force", name])


@dataclass(frozen=True, slots=True)
class Podman:
    home: Path
    rootfs: Path
    runtime: str = RUNC

    @property
    def _base(self) -> tuple[str, ...]:
        places = [f"--{name}={self.home / name}" for name in ("root", "runroot", "tmpdir")]
        return ("podman", *places, "--cgroup-manager=cgroupfs", "--runtime", self.runtime)

    # Hosts without CAP_SYS_RESOURCE refuse podman's own limits.
    _LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")

    def run(self, *args: str, network: str = "none") -> tuple[str, ...]:
        return (
            *self._base,
            "run",
            "--rm",
            f"--network={network}",
            *self._LIMITS,
            "--rootfs",
            str(self.rootfs),
            *args,
        )

    def start(self, name: str, *args: str) -> None:
        words = ["run", "--detach", "--name", name, "--network=none", *self._LIMITS]
        _call([*self._base, *words, "--rootfs", str(self.rootfs), *args])

    def exec(self, name: str, *args: str) -> tuple[str, ...]:
        return (*self._base, "exec", name, *args)

    def remove(self, name: str) -> None:
        _call([*self._base, "rm", "--force", "--time=0", name])

    def conmon_pids(self) -> list[int]:
        return [
            pid
            for pid, words in _processes()
            if "conmon" in words[0] and any(str(self.home) in w for w in words)
        ]


@contextmanager
def podman(home: Path, rootfs: Path) -> Iterator[Podman]:
    """Use a podman of our own; afterwards take away the mount and the cgroups that it leaves."""
    yield Podman(home, rootfs)
    subprocess.run(["umount", str(home / "root/overlay")], capture_output=True, check=False)
    _remove_empty_cgroups("libpod_parent")


@dataclass(frozen=True, slots=True)
class Buildah:
    home: Path

    def build(self, context: Path, *options: str) -> tuple[str, ...]:
        """Build the context's Dockerfile with its cache of layers, quietly."""
        places = [f"--{name}={self.home / name}" for name in ("root", "runroot")]
        words = ("bud", "--quiet", "--layers", "--isolation=chroot", "--tag=bench")
        return ("buildah", *places, "--storage-driver=overlay", *words, *options, str(context))


@contextmanager
def buildah(home: Path) -> Iterator[Buildah]:
    """Use a buildah of our own; afterwards take away the mount that it leaves."""
    yield Buildah(home)
    subprocess.run(["umount", str(home / "root/overlay")], capture_output=True, check=False)


@dataclass(frozen=True, slots=True)
class Containerd:
    home: Path
    rootfs: Path

    @property
    def _base(self) -> tuple[str, ...]:
        return ("ctr", "--address", self.address, "--namespace", "aos-bench")

    @property
    def address(self) -> str:
        return str(self.home / "containerd.sock")

    def run(self, name: str, *args: str) -> tuple[str, ...]:
        return (*self._base, "run", "--rm", "--rootfs", str(self.rootfs), name, *args)

    def start(self, name: str, *args: str) -> None:
        _call([*self._base, "run", "--detach", "--rootfs", str(self.rootfs), name, *args])

    def exec(self, name: str, exec_id: str, *args: str) -> tuple[str, ...]:
        return (*self._base, "tasks", "exec", "--exec-id", exec_id, name, *args)

    def remove(self, name: str) -> None:
        subprocess.run(
            [*self._base, "tasks", "kill", "--signal", "SIGKILL", name], capture_output=True, check=False
        )
        deadline = time.monotonic() + 10
        while True:  # a task can be deleted once its end has been noticed
            done = subprocess.run([*self._base, "tasks", "delete", name], capture_output=True, check=False)
            if done.returncode == 0 or b"not found" in done.stderr or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        _call([*self._base, "containers", "delete", name])

    def shim_pids(self) -> list[int]:
        return [
            pid
            for pid, words in _processes()
            if "containerd-shim" in words[0] and any(str(self.home) in word for word in words)
        ]


CONFIG = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{home}/containerd.sock"
[ttrpc]
  address = "{home}/containerd.sock.ttrpc"
"""


@contextmanager
def containerd(home: Path, rootfs: Path) -> Iterator[Containerd]:
    """Start a containerd of our own for the time of the block."""
    home.mkdir(parents=True)
    (home / "config.toml").write_text(CONFIG.format(home=home))
    environ = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    with (home / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["containerd", "--config", str(home / "config.toml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
        )
    peer = Containerd(home, rootfs)
    try:
        deadline = time.monotonic() + 20
        while subprocess.run([*peer._base, "version"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not start: {(home / 'log').read_text()[-500:]}")
            time.sleep(0.05)
        yield peer
    finally:
        daemon.terminate()
        daemon.wait(20)
        _remove_empty_cgroups("aos-bench")


def _remove_empty_cgroups(name: str) -> None:
    for tree in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for directory in (*(tree / name).glob("*/"), tree / name):
            with suppress(OSError):
                directory.rmdir()


def _processes() -> list[tuple[int, list[str]]]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if words[0]:
                found.append((int(entry.name), words))
    return found
