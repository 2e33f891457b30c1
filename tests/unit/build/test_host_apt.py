"""Reading a host's apt configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from aos.build.host.apt import (
    Archive,
    Release,
    auth_files,
    default_archives,
    host_archives,
    read_release,
    trusted_keys,
)

BOOKWORM = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text(BOOKWORM)
    return tmp_path


def test_deb822(root: Path) -> None:
    (root / "etc/apt/sources.list.d/debian.sources").write_text(
        "# a comment\nTypes: deb deb-src\nURIs: http://mirror.test/debian\n"
        "Suites: bookworm bookworm-updates\n bookworm-backports\nComponents: main contrib\n"
        "Signed-By: /usr/share/keyrings/k.gpg\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.test\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb-src\nURIs: http://src.test\nSuites: bookworm\nComponents: main\n\n"
        "Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n"
    )
    found = host_archives(Release("debian", "bookworm"), root)
    assert [(archive.uri, archive.suite) for archive in found] == [
        ("http://mirror.test/debian", "bookworm"),
        ("http://mirror.test/debian", "bookworm-updates"),
        ("http://mirror.test/security", "bookworm-security"),
    ]
    assert found[0].to_line() == (
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://mirror.test/debian bookworm main contrib"
    )
    assert found[2].signed_by == ""


def test_one_line_sources_and_what_a_host_added(root: Path) -> None:
    (root / "etc/apt/sources.list").write_text(
        "deb [arch=amd64 Signed-By=/k.gpg trusted=yes] http://m.test/debian bookworm main # here\n"
        "deb-src http://m.test/debian bookworm main\n"
        "deb http://vendor.test/apt stable main\n"
        "deb http://flat.test/ ./\n"
        "# deb http://off.test bookworm main\n"
    )
    (root / "etc/apt/sources.list.d/ignored.txt").write_text("deb http://x.test bookworm main\n")
    assert host_archives(Release("debian", "bookworm"), root) == (
        Archive("http://m.test/debian", "bookworm", ("main",), "/k.gpg", True),
    )


def test_another_release_gets_the_same_mirror(root: Path) -> None:
    (root / "etc/apt/sources.list").write_text(
        "deb http://m.test/debian bookworm main\ndeb http://m.test/debian bookworm-updates main\n"
    )
    trixie = host_archives(Release("debian", "trixie"), root)
    assert [archive.suite for archive in trixie] == ["trixie", "trixie-updates"]
    assert [archive.suite for archive in host_archives(Release("debian", "sid"), root)] == ["sid"]


def test_another_distribution_gets_nothing(root: Path) -> None:
    (root / "etc/apt/sources.list").write_text("deb http://m.test/debian bookworm main\n")
    assert host_archives(Release("ubuntu", "noble"), root) == ()
    (root / "etc/os-release").unlink()
    assert host_archives(Release("debian", "bookworm"), root) == ()


def test_public_archives() -> None:
    assert [archive.suite for archive in default_archives(Release("debian", "bookworm"))] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]
    assert [archive.suite for archive in default_archives(Release("debian", "sid"))] == ["sid"]
    assert default_archives(Release("fedora", "")) == ()


def test_release_keys_and_credentials(root: Path) -> None:
    assert read_release("ID='ubuntu'\nnonsense\n#ID=x\n") == Release("ubuntu", "")
    (root / "etc/apt/trusted.gpg.d").mkdir()
    (root / "etc/apt/auth.conf.d").mkdir()
    for name in ("trusted.gpg.d/a.asc", "trusted.gpg.d/b.gpg~", "auth.conf", "auth.conf.d/x.conf"):
        (root / "etc/apt" / name).write_text("x")
    (root / "etc/apt/trusted.gpg.d/empty.gpg").touch()
    assert [file.name for file in trusted_keys(root)] == ["a.asc"]
    assert [file.name for file in auth_files(root)] == ["auth.conf", "x.conf"]


def test_a_local_mirror_is_a_directory() -> None:
    assert Archive("file:///srv/mirror", "x", ()).local_directory == Path("/srv/mirror")
    assert Archive("copy:/srv/mirror", "x", ()).local_directory == Path("/srv/mirror")
    assert Archive("http://x.test", "x", ()).local_directory is None
