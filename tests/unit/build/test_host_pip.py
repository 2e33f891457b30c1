"""Reading where a host gets Python packages from."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from aos.build.host.network import network_mounts, proxy_environment
from aos.build.host.pip import PipSettings, read_pip_settings

if TYPE_CHECKING:
    from pathlib import Path


def _read(root: Path, **environ: str) -> PipSettings:
    return read_pip_settings({"HOME": str(root / "home"), **environ}, "/place", root=root)


def test_nothing_configured_is_nothing_said(tmp_path: Path) -> None:
    settings = _read(tmp_path)
    assert settings.to_toml().strip() == ""
    assert (settings.environment, settings.mounts) == ({}, [])


def test_pip_environment(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "ca.pem").write_text("x")
    settings = _read(
        tmp_path,
        PIP_INDEX_URL="https://user:secret@index.test/simple",
        PIP_EXTRA_INDEX_URL="https://a.test https://b.test",
        PIP_FIND_LINKS=f"{tmp_path}/wheels https://links.test",
        PIP_TRUSTED_HOST="index.test",
        PIP_DEFAULT_TIMEOUT="99",
        PIP_PROXY="http://proxy.test:1",
        PIP_CERT="/ca.pem",
    )
    assert tomllib.loads(settings.to_toml()) == {
        "find-links": ["/place/0", "https://links.test"],
        "allow-insecure-host": ["index.test"],
        "index": [
            {"url": "https://a.test"},
            {"url": "https://b.test"},
            {"url": "https://user:secret@index.test/simple", "default": True},
        ],
    }
    assert {mount.target: mount.source for mount in settings.mounts} == {
        "/place/0": tmp_path / "wheels",
        "/place/ca.pem": tmp_path / "ca.pem",
    }
    assert all(mount.read_only for mount in settings.mounts)
    assert settings.environment["SSL_CERT_FILE"] == "/place/ca.pem"
    assert settings.environment["UV_HTTP_TIMEOUT"] == "99"
    assert settings.environment["https_proxy"] == "http://proxy.test:1"


def test_pip_files_the_later_wins(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/pip.conf").write_text("[global]\nindex-url = https://etc.test\nno-index = yes\n")
    (tmp_path / "home/.config/pip").mkdir(parents=True)
    (tmp_path / "home/.config/pip/pip.conf").write_text("[install]\nindex_url = https://home.test\n")
    settings = _read(tmp_path)
    assert settings.indexes == [{"url": "https://home.test", "default": True}]
    assert settings.no_index
    assert _read(tmp_path, PIP_CONFIG_FILE="/dev/null").indexes == []


def test_uv_wins_over_pip_and_the_environment_over_files(tmp_path: Path) -> None:
    (tmp_path / "home/.config/uv").mkdir(parents=True)
    (tmp_path / "home/.config/uv/uv.toml").write_text(
        '[[index]]\nname = "corp"\nurl = "https://corp.test"\nexplicit = true\n'
        '[[index]]\nurl = "https://default.test"\ndefault = true\n[pip]\nno-index = false\n'
    )
    settings = _read(tmp_path, PIP_INDEX_URL="https://pip.test", UV_INDEX_CORP_PASSWORD="p", PIP_NO_INDEX="1")
    assert settings.indexes == [
        {"name": "corp", "url": "https://corp.test", "explicit": True},
        {"url": "https://default.test", "default": True},
    ]
    assert not settings.no_index
    assert settings.environment == {"UV_INDEX_CORP_PASSWORD": "p"}
    assert _read(tmp_path, UV_DEFAULT_INDEX="mine=https://env.test").indexes[-1] == {
        "name": "mine",
        "url": "https://env.test",
        "default": True,
    }
    assert _read(tmp_path, UV_NO_CONFIG="1", UV_INDEX="a=https://x.test/?q=1").indexes == [
        {"name": "a", "url": "https://x.test/?q=1"}
    ]


def test_an_index_on_disk_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "simple").mkdir()
    settings = _read(tmp_path, PIP_INDEX_URL=f"file://{tmp_path}/simple", PIP_FIND_LINKS="/not/there")
    assert settings.indexes == [{"url": "file:///place/0", "default": True}]
    assert settings.find_links == ["/not/there"]


@pytest.mark.parametrize("text", ["[global\n", "\x00\xff", "no section = 1\n"])
def test_a_file_that_cannot_be_parsed_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "etc/uv").mkdir(parents=True)
    (tmp_path / "etc/pip.conf").write_text(text)
    (tmp_path / "etc/uv/uv.toml").write_text(text)
    assert _read(tmp_path).indexes == []


def test_network(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/resolv.conf").write_text("nameserver ::1\n")
    (tmp_path / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (mount,) = network_mounts(tmp_path)
    assert (mount.target, mount.source, mount.read_only) == (
        "/etc/resolv.conf",
        tmp_path / "run/resolv.conf",
        True,
    )
    environ = {"HTTP_PROXY": "a", "no_proxy": "b", "HOME": "c"}
    assert proxy_environment(environ) == (("HTTP_PROXY", "a"), ("no_proxy", "b"))
