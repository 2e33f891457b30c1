"""Debian packages as files: read, and laid out as an archive that apt reads."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from aos.agentfile.pins import DebianPackage
from aos.build.host.deb import Listed, listed_in, priority_of, read_control, write_archive
from aos.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTROL = "Package: it\nVersion: 1:2.0-1\nArchitecture: all\nPriority: optional\nDescription: a\n longer\n"


def _deb(path: Path, control: str = CONTROL, suffix: str = "xz") -> DebianPackage:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("./control")
        member.size = len(control)
        archive.addfile(member, io.BytesIO(control.encode()))
    pack: dict[str, Callable[[bytes], bytes]] = {
        "xz": lzma.compress,
        "gz": gzip.compress,
        "zst": lambda data: zstandard.ZstdCompressor().compress(data),
    }
    data = pack[suffix](buffer.getvalue())
    members = [("debian-binary", b"2.0\n"), (f"control.tar.{suffix}", data), ("data.tar.xz", b"odd")]
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in members:
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return DebianPackage.of_file(path.name, f"sha256:{digest}")


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_the_control_file_is_found_however_it_is_packed(tmp_path: Path, suffix: str) -> None:
    _deb(tmp_path / "it_1%3a2.0-1_all.deb", suffix=suffix)
    assert read_control(tmp_path / "it_1%3a2.0-1_all.deb") == CONTROL


@pytest.mark.parametrize("damage", [b"", b"!<arch>\n", b"<html>", b"!<arch>\ncontrol.tar.xz  " + b"x" * 60])
def test_what_is_no_package_is_told(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "it.deb"
    file.write_bytes(damage)
    with pytest.raises(DataLoss, match=r"it\.deb") as caught:
        read_control(file)
    assert caught.value.code == "package-damaged"


def test_an_archive_of_kept_packages_says_what_the_real_one_said(tmp_path: Path) -> None:
    package = _deb(tmp_path / "it_1%3a2.0-1_all.deb")
    required = DebianPackage(
        package.name, package.version, package.architecture, package.digest, "bookworm/main", "required"
    )
    write_archive(tmp_path, [required], label="kept", suite="bookworm")
    index = (tmp_path / "Packages").read_text()
    assert "Filename: ./it_1%3a2.0-1_all.deb\n" in index
    assert f"SHA256: {package.digest[7:]}\n" in index
    assert priority_of(index) == "required"
    assert index.count("Priority:") == 1
    release = (tmp_path / "Release").read_text()
    assert hashlib.sha256(index.encode()).hexdigest() in release
    assert "Suite: bookworm\n" in release
    write_archive(tmp_path, [], label="kept", suite="bookworm")
    assert (tmp_path / "Packages").read_text() == ""


def test_lists_tell_where_a_package_is_and_what_it_is_there(tmp_path: Path) -> None:
    stanza = "Package: it\nVersion: {}\nPriority: {}\n\nPackage: other\nVersion: 1\n\n"
    for name, version, priority in (
        ("mirror.test_debian_dists_bookworm_main_binary-amd64_Packages", "1", "required"),
        ("mirror.test_debian-security_dists_bookworm-security_main_binary-amd64_Packages", "2", "extra"),
        ("_build_kept_._Packages", "3", "x"),
    ):
        (tmp_path / name).write_text(stanza.format(version, priority))
    wanted = [DebianPackage("it", version, "amd64", "") for version in ("1", "2", "3")]
    assert listed_in(tmp_path, wanted) == {
        ("it", "1"): Listed("bookworm/main", "required"),
        ("it", "2"): Listed("bookworm-security/main", "extra"),
    }


def test_dpkg_agrees(tmp_path: Path) -> None:
    """The control file of a package that Debian's own tool made."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: it\nVersion: 1\nArchitecture: all\nMaintainer: t <t@t>\nDescription: x\n"
    )
    try:
        subprocess.run(
            ["dpkg-deb", "--build", str(tree), str(tmp_path / "it.deb")], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("dpkg-deb is not here: apt-get install dpkg")
    assert read_control(tmp_path / "it.deb") == (tree / "DEBIAN/control").read_text()
