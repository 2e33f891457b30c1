"""An ordinary user made for the test, with the command `aos` in an installation of the user's own, and nothing left behind.

ordinary_user   (module) all of it; `OrdinaryUser.delegated` gives the user control groups
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.config import Config
from fix_installation import COMMAND, REPOSITORY, Installation, requires
from traces import SETTLE

if TYPE_CHECKING:
    from collections.abc import Iterator

_PASSED_ON = ("_PROXY", "_proxy", "_CERT", "_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "_INDEX_URL")
_LAUNCH = """
mount --bind "$1" /dev/net/tun || exit
shift
for group in $AOS_TEST_GROUPS; do echo $$ > $group/cgroup.procs || exit; done
unset AOS_TEST_GROUPS
exec "$@"
"""
"""In a mount namespace of its own, where /dev/net/tun may be opened, as it may on ordinary hosts."""


@dataclass(frozen=True, slots=True)
class OrdinaryUser(Installation):
    name: str = ""
    uid: int = 0
    home: Path = Path("/nonexistent")
    aos: Path = COMMAND
    groups: list[str] = field(default_factory=list)
    """Control groups that commands are started in."""

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name.endswith(_PASSED_ON)}
        own = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}
        own |= {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "AOS_TEST_GROUPS": " ".join(self.groups),
        }
        return kept | own | {"XDG_RUNTIME_DIR": str(self.home / "run"), **self.environ}

    def command(self, *words: str | os.PathLike[str]) -> list[str]:
        return self.as_user(self.aos, *words)

    def as_user(self, *words: str | os.PathLike[str]) -> list[str]:
        entering = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _LAUNCH, "sh"]
        becoming = ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", "--"]
        return [*entering, str(self.home.parent / "tun"), *becoming, *map(str, words)]

    @property
    def subordinate(self) -> range:
        for line in Path("/etc/subuid").read_text().splitlines():
            name, first, count = line.split(":")
            if name == self.name:
                return range(int(first), int(first) + int(count))
        raise AssertionError(f"{self.name} has no line in /etc/subuid")

    def processes(self) -> dict[int, str]:
        """Of the user and of the subordinate ids."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    uid = entry.stat().st_uid
                    state = (entry / "stat").read_text().rpartition(") ")[2][0]
                    if (uid == self.uid or uid in self.subordinate) and state not in "ZX":
                        found[int(entry.name)] = (
                            (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                        )
        return found

    def settle(self) -> None:
        """Fail unless every process of the user ends by itself."""
        deadline = time.monotonic() + SETTLE
        while left := self.processes():
            if time.monotonic() > deadline:
                raise AssertionError(f"left behind: {left}")
            time.sleep(0.02)


@pytest.fixture(scope="module")
def ordinary_user() -> Iterator[OrdinaryUser]:
    if os.getuid() != 0:
        pytest.skip("needs root, to make a user (sudo make test)")
    requires(
        "useradd", "usermod", "newuidmap", "newgidmap", "setpriv", "unshare", "runc", "conmon", "busybox"
    )
    place = Path(tempfile.mkdtemp(prefix="aos-", dir="/tmp"))
    place.chmod(0o755)
    name = f"aos-{place.name[-4:].lower().replace('_', 'x')}"
    home = place / "home"
    subprocess.run(["useradd", "--create-home", "--home-dir", home, "--shell", "/bin/sh", name], check=True)
    try:
        user = _equip(name, home)
        try:
            yield user
        finally:
            try:
                user.end()
                user.settle()
                for left in (user.root, user.state):
                    subprocess.run(
                        user.command("unshare", "rm", "-rf", left),
                        env=user.environment(),
                        check=True,
                        timeout=60,
                    )
                strangers = [path for path in home.rglob("*") if path.lstat().st_uid not in (user.uid, 0)]
                assert strangers == []
            finally:
                for pid in user.processes():  # what a test that failed has left
                    os.kill(pid, signal.SIGKILL)
    finally:
        subprocess.run(["userdel", name], check=True)
        shutil.rmtree(place)


def _equip(name: str, home: Path) -> OrdinaryUser:
    entry = pwd.getpwnam(name)
    for kind in ("uid", "gid"):
        file = Path(f"/etc/sub{kind}")
        lines = file.read_text().splitlines() if file.exists() else []
        if not any(
            line.startswith(f"{name}:") for line in lines
        ):  # useradd gives ranges only where it is told to
            first = max([0x10000, *(sum(map(int, line.split(":")[1:])) for line in lines)])
            subprocess.run(["usermod", f"--add-sub{kind}s", f"{first}-{first + 65535}", name], check=True)
    (home / "run").mkdir(mode=0o700)
    os.chown(home / "run", entry.pw_uid, entry.pw_gid)
    os.mknod(home.parent / "tun", stat.S_IFCHR | 0o666, os.makedev(10, 200))
    (home.parent / "tun").chmod(0o666)
    config = Config(root=home / ".local/share/aos", state=home / "run/aos")
    return OrdinaryUser(
        config, name=name, uid=entry.pw_uid, home=home, aos=_command(name, home.parent / "venv")
    )


def _command(name: str, directory: Path) -> Path:
    """The command, with a Python that the user may execute: ours, or the distribution's of the same version."""
    becoming = ["setpriv", "--reuid", name, "--clear-groups", "--", "sh", "-c"]  # which itself still may more
    tried = subprocess.run(
        [*becoming, f"exec {sys.executable} -c ''"], stderr=subprocess.DEVNULL, check=False
    )
    if tried.returncode == 0:
        return COMMAND
    version = f"python3.{sys.version_info.minor}"
    python = f"/usr/bin/{version}"
    if not Path(python).exists():
        pytest.skip(f"missing: {python}, a Python that an ordinary user may execute")
    subprocess.run([python, "-m", "venv", "--without-pip", directory], check=True)
    shutil.copy2(COMMAND, directory / "bin/aos")
    packages = directory / "lib" / version / "site-packages"
    (packages / "_openos_aos.pth").write_text(f"{REPOSITORY}/src\n")
    (packages / "others.pth").write_text(f"{sys.prefix}/lib/{version}/site-packages\n")
    return directory / "bin/aos"
