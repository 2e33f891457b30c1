"""Packages in the hands of tools that have never heard of AOS: podman, skopeo, umoci."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.content.store import ContentStore
from aos.package import Package, read_layout, verify_package, write_archive, write_layout
from fix_installation import requires
from package_making import busybox_package

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = "echo $A in $(pwd) as $(/bin/busybox id -u):$(/bin/busybox id -g)"


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    requires("busybox")
    return ContentStore(tmp_path / "content")


@pytest.fixture
def package(content: ContentStore) -> Package:
    return busybox_package(content.blobs, SCRIPT)


@pytest.fixture
def layout(tmp_path: Path, package: Package, content: ContentStore) -> Path:
    write_layout(package, content.blobs, tmp_path / "layout")
    return tmp_path / "layout"


@pytest.fixture
def podman() -> Iterator[Callable[..., str]]:
    """A podman whose storage and cgroups are this test's own."""
    requires("podman", "runc")
    group = f"aos-test-{os.getpid()}"
    home = Path(tempfile.mkdtemp(prefix="podman-", dir="/tmp"))  # its runroot may have 50 characters
    places = [f"--{name}={home / name}" for name in ("root", "runroot", "tmpdir")]
    base = ["podman", *places, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc"]
    # Hosts without CAP_SYS_RESOURCE refuse podman's own limits.
    limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]

    def start(*words: str) -> str:
        return run(*base, "run", "--rm", "--network=none", f"--cgroup-parent=/{group}", *limits, *words)

    yield start
    shutil.rmtree(home)
    for top in (*Path("/sys/fs/cgroup").glob(group), *Path("/sys/fs/cgroup").glob(f"*/{group}")):
        for directory, _, _ in os.walk(top, topdown=False):
            Path(directory).rmdir()


@pytest.mark.root
def test_podman_runs_the_layout_as_it_is(layout: Path, podman: Callable[..., str]) -> None:
    assert podman(f"oci:{layout}") == "b in /srv as 1000:1000\n"
    assert podman(f"oci:{layout}:1.2.0", "echo else") == "else\n"


@pytest.mark.root
def test_podman_runs_the_archive(
    tmp_path: Path, package: Package, content: ContentStore, podman: Callable[..., str]
) -> None:
    write_archive(package, content.blobs, tmp_path / "hello.tar")
    assert podman(f"oci-archive:{tmp_path / 'hello.tar'}") == "b in /srv as 1000:1000\n"


def test_skopeo_copies_it_there_and_back(
    tmp_path: Path, layout: Path, package: Package, content: ContentStore
) -> None:
    requires("skopeo")
    shown = json.loads(run("skopeo", "inspect", f"oci:{layout}:1.2.0"))
    assert shown["Digest"] == package.manifest_digest
    assert shown["Labels"]["aos.openos.dev/name"] == "hello"
    run("skopeo", "copy", f"oci:{layout}:1.2.0", f"oci-archive:{tmp_path / 'copy.tar'}:mine")
    other = ContentStore(tmp_path / "other")
    assert read_layout(tmp_path / "copy.tar", other.blobs) == [("mine", package)]
    assert all(check.problem is None for check in verify_package(package, other.blobs))


def test_skopeo_adds_an_image_to_our_layout(tmp_path: Path, layout: Path, package: Package) -> None:
    """Our sidecars keep describing our package; both can be read."""
    requires("skopeo")
    run("skopeo", "copy", f"oci:{layout}:1.2.0", f"oci:{layout}:copy")
    found = read_layout(layout, ContentStore(tmp_path / "other").blobs)
    assert [name for name, _ in found] == ["1.2.0", "copy"]
    assert {one.manifest_digest for _, one in found} == {package.manifest_digest}


@pytest.mark.root
def test_umoci_unpacks_it(tmp_path: Path, layout: Path) -> None:
    requires("umoci")
    run("umoci", "unpack", "--image", f"{layout}:1.2.0", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/bin/sh").readlink() == Path("busybox")
    assert json.loads((tmp_path / "bundle/config.json").read_text())["process"]["args"][:2] == [
        "/bin/sh",
        "-c",
    ]


def test_a_layout_that_umoci_made_is_a_foreign_image(tmp_path: Path) -> None:
    requires("umoci")
    run("umoci", "init", "--layout", tmp_path / "umoci")
    run("umoci", "new", "--image", f"{tmp_path / 'umoci'}:empty")
    ((name, package),) = read_layout(tmp_path / "umoci", ContentStore(tmp_path / "content").blobs)
    assert (name, package.definition, package.layers) == ("empty", None, ())
