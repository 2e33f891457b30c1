"""A base with Python that needs no network, and wheels that are made here.

python_root   (session) an AOS_ROOT whose store holds `python:1`: busybox, and the host's own Python
debian_root   (session) an AOS_ROOT whose cache holds the Debian base of examples/hello; needs a network
python        a `Builder` in a copy of it, whose pip takes packages from `Python.wheels` and from nowhere else
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.build.steps.uv import find_uv
from fix_build import Builder
from fix_installation import REPOSITORY, Installation, new_installation, requires, requires_root

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Python", "debian_root", "python", "python_root", "write_wheel"]

_INTERPRETER = Path("/usr/bin/python3")


@dataclass(frozen=True, slots=True)
class Python(Builder):
    wheels: Path

    def offer(self, name: str, version: str, *needs: str) -> Path:
        """Put a wheel among what pip finds; its module tells its version."""
        return write_wheel(self.wheels, name, version, *needs)

    def withdraw(self, name: str, version: str) -> None:
        (self.wheels / f"{name}-{version}-py3-none-any.whl").unlink()

    def offline(self, *words: str | Path) -> str:
        """Run `aos WORDS` in a network namespace of its own that has no network; its output."""
        done = subprocess.run(
            ["unshare", "--net", *self.aos.command(*words)],
            capture_output=True,
            text=True,
            env=self.aos.environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def write_wheel(directory: Path, name: str, version: str, *needs: str, command: bool = False) -> Path:
    """A wheel of one module, and a command of its name; the same words give the same bytes."""
    directory.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{name}.py": f"VERSION = {version!r}\n".encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if command:
        files[f"{name}.py"] += b"def main():\n    print(VERSION)\n"
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {name}:main\n".encode()
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items()
    )
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    wheel.write_bytes(buffer.getvalue())
    return wheel


@pytest.fixture(scope="session")
def python_root(busybox_root: Path) -> Iterator[Path]:
    requires_root()
    if not _INTERPRETER.exists():
        pytest.skip(f"{_INTERPRETER} is not here: apt-get install python3")
    requires("umoci", "ldd")
    made = new_installation()
    shutil.copytree(busybox_root, made.root, symlinks=True)
    context = made.root.parent / "python"
    binary = _INTERPRETER.resolve()
    (context / "usr/bin").mkdir(parents=True)
    shutil.copy2(binary, context / "usr/bin/python3")
    programs = [str(binary), str(find_uv())]
    linked = subprocess.run(["ldd", *programs], check=True, capture_output=True, text=True).stdout
    for library in map(Path, re.findall(r"(/\S+) \(0x", linked)):
        target = context / str(library).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), target)
    modules = Path("usr/lib") / binary.name
    unneeded = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "tkinter", "config-*")
    shutil.copytree("/" / modules, context / modules, symlinks=True, ignore=unneeded)
    (context / "Agentfile").write_text(
        """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata: {name: python, version: 1.0.0}
from: busybox:1
steps:
  - copy: {src: ., dest: /}
entrypoint: {command: [python3]}
"""
    )
    (context / ".dockerignore").write_text("Agentfile\n")
    made("build", "-q", "-t", "python:1", context)
    yield made.root
    shutil.rmtree(made.root.parent)


@pytest.fixture
def python(python_root: Path, tmp_path: Path) -> Iterator[Python]:
    made = new_installation()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    shutil.copytree(python_root, made.root, symlinks=True)
    environ = {"PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1", "UV_NO_CONFIG": "1"}
    installation: Installation = replace(made, environ=environ)
    built = Python(installation, tmp_path, wheels)
    yield built
    assert built.left_over() == []
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(made.root.parent)


@pytest.fixture(scope="session")
def debian_root() -> Iterator[Path]:
    """(session) An AOS_ROOT whose build cache holds the Debian base of examples/hello."""
    requires_root()
    requires("mmdebstrap")
    made = new_installation()
    made("build", "-q", REPOSITORY / "examples/hello", timeout=280)
    yield made.root
    shutil.rmtree(made.root.parent)
