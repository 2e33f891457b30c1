"""What is taken out of an upper directory before it becomes a layer."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from aos.build.layers.upper import settle
from aos.content.tree import LayerTree

if TYPE_CHECKING:
    from pathlib import Path

OLD = 1_000_000_000


@pytest.fixture
def lower(tmp_path: Path) -> LayerTree:
    root = tmp_path / "lower"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text("x")
    (root / "var/log").mkdir(parents=True)
    (root / "var/run").symlink_to("/run")
    return LayerTree((root,))


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    directory = tmp_path / "upper"
    directory.mkdir()
    return directory


def _files(upper: Path) -> list[str]:
    return sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))


def _settle(upper: Path, lower: LayerTree, **options: object) -> None:
    settle(upper, lower, epoch=7, since_ns=0, **options)  # type: ignore[arg-type]


def test_mount_points_go_and_the_steps_own_directories_stay(upper: Path, lower: LayerTree) -> None:
    for name in ("proc", "dev/pts", "sys", ".aos-build/uv-cache", "run/aos", "own/empty", "opt/mounted"):
        (upper / name).mkdir(parents=True)
    (upper / "etc").mkdir()
    (upper / "etc/resolv.conf").touch()
    (upper / ".aos-build/uv").touch()
    (upper / "dev/null").touch()
    _settle(upper, lower, mounts=("/opt/mounted",))
    assert _files(upper) == ["dev", "dev/null", "dev/pts", "own", "own/empty"]


def test_a_mount_point_with_content_is_the_steps_work(upper: Path, lower: LayerTree) -> None:
    (upper / "etc").mkdir()
    (upper / "etc/resolv.conf").write_text("nameserver ::1\n")
    (upper / "run/kept").mkdir(parents=True)
    _settle(upper, lower)
    assert _files(upper) == ["etc", "etc/resolv.conf", "run", "run/kept"]


def test_dropped_files_leave_their_directories(upper: Path, lower: LayerTree) -> None:
    (upper / "var/log/service").mkdir(parents=True)
    (upper / "var/log/dpkg.log").write_text("2026")
    (upper / "var/log/service/log").write_text("2026")
    (upper / "usr/lib/__pycache__").mkdir(parents=True)
    (upper / "usr/lib/__pycache__/a.pyc").write_text("x")
    _settle(upper, lower, drop=("var/log/**", "**/__pycache__/"))
    assert _files(upper) == ["usr", "usr/lib", "var", "var/log", "var/log/service"]


def test_a_directory_that_says_nothing_new_goes(upper: Path, lower: LayerTree) -> None:
    (upper / "var/log").mkdir(parents=True)
    _settle(upper, lower)
    assert _files(upper) == []
    (upper / "var/log").mkdir(parents=True)
    (upper / "var/log").chmod(0o700)
    _settle(upper, lower)
    assert _files(upper) == ["var", "var/log"]


def test_what_the_step_touched_gets_the_epoch_and_the_rest_keeps_its_date(
    upper: Path, lower: LayerTree
) -> None:
    (upper / "packaged").write_text("x")
    (upper / "link").symlink_to("packaged")
    os.utime(upper / "packaged", ns=(0, OLD * 10**9 + 5))
    since = upper.stat().st_mtime_ns
    (upper / "new").write_text("x")
    settle(upper, lower, epoch=OLD + 7, since_ns=since)
    assert (upper / "packaged").stat().st_mtime_ns == OLD * 10**9  # in whole seconds, as in a layer
    assert (upper / "new").stat().st_mtime == OLD + 7
    assert (upper / "link").lstat().st_mtime == OLD + 7
    settle(upper, lower, epoch=7, since_ns=2**62)
    assert (upper / "packaged").stat().st_mtime == 7
    os.utime(upper / "packaged", (1, 1))
    settle(upper, lower, epoch=7, since_ns=2**62, restamp=True)
    assert (upper / "packaged").stat().st_mtime == 7


@pytest.mark.root
def test_an_opaque_mark_stays_only_where_it_hides_something(upper: Path, lower: LayerTree) -> None:
    for name in ("etc", "new"):
        (upper / name).mkdir()
        os.setxattr(upper / name, "trusted.overlay.opaque", b"y")
    _settle(upper, lower)
    assert "trusted.overlay.opaque" in os.listxattr(upper / "etc")
    assert "trusted.overlay.opaque" not in os.listxattr(upper / "new")


def test_a_file_with_a_name_outside_is_not_all_ours(upper: Path, lower: LayerTree, tmp_path: Path) -> None:
    (upper / "file").write_text("x")
    (upper / "again").hardlink_to(upper / "file")
    assert settle(upper, lower, epoch=7, since_ns=0)
    (tmp_path / "outside").hardlink_to(upper / "file")
    assert not settle(upper, lower, epoch=7, since_ns=0)


@pytest.mark.root
def test_what_no_layer_holds_goes(upper: Path, lower: LayerTree) -> None:
    (upper / "file").write_text("x")
    os.mknod(upper / "socket", stat.S_IFSOCK)
    for name, value in (
        ("trusted.overlay.origin", b"x"),
        ("user.note", b"kept"),
        ("user.overlay.impure", b"y"),
    ):
        os.setxattr(upper / "file", name, value)
    upper.chmod(0o700)
    _settle(upper, lower)
    assert _files(upper) == ["file"]
    assert os.listxattr(upper / "file") == ["user.note"]
    assert stat.S_IMODE(upper.stat().st_mode) == 0o755
