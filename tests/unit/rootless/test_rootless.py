"""The pure parts of aos.rootless: ranges of ids, delegated groups, who we are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from aos.config import load_config
from aos.rootless.delegation import asking_systemd, delegated_group
from aos.rootless.ranges import id_map, subordinate_ids
from aos.rootless.user import user_id

if TYPE_CHECKING:
    import pytest


def test_ranges_by_name_and_by_number(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("root:1:2\nada:100000:65536\n1000:300000:10\nada:x:y\nada:5\nadah:7:7\n")
    assert subordinate_ids("ada", 1000, "uid", etc=tmp_path) == ((100000, 65536), (300000, 10))
    assert subordinate_ids("bob", 4_000_000, "uid", etc=tmp_path) == ()
    assert subordinate_ids("ada", 1000, "gid", etc=tmp_path / "nowhere") == ()


def test_the_user_is_root_and_the_ranges_follow() -> None:
    words = id_map(1000, ((100000, 65536), (300000, 10)))
    assert words == ["0", "1000", "1", "1", "100000", "65536", "65537", "300000", "10"]


def test_the_uppermost_group_that_is_ours(tmp_path: Path) -> None:
    ours = {tmp_path / "user.slice/user@7.service", tmp_path / "user.slice/user@7.service/app.slice"}
    own = "0::/user.slice/user@7.service/app.slice/terminal.scope\n"
    assert delegated_group([tmp_path], own, ours.__contains__) == "user.slice/user@7.service"
    assert delegated_group([tmp_path], "0::/user.slice/session-3.scope\n", ours.__contains__) is None
    assert delegated_group([], own, ours.__contains__) is None


def test_of_version_1_a_group_counts_that_is_ours_in_every_hierarchy(tmp_path: Path) -> None:
    memory, pids = tmp_path / "memory", tmp_path / "pids"
    own = "4:memory:/ours/inner\n3:pids:/ours/inner\n"
    assert delegated_group([memory, pids], own, {memory / "ours", pids / "ours"}.__contains__) == "ours"
    assert delegated_group([memory, pids], own, {memory / "ours", pids / "ours/inner"}.__contains__) is None
    assert delegated_group([memory, pids], "4:memory:/a\n3:pids:/b\n", lambda _: True) is None


def test_systemd_is_asked_where_it_would_give_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/systemd-run"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert asking_systemd(environ, root=tmp_path) == []  # not version 2
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("memory pids\n")
    assert asking_systemd(environ, root=tmp_path) == []  # no manager of the user's
    (tmp_path / "run/systemd").mkdir(parents=True)
    (tmp_path / "run/systemd/private").touch()
    assert asking_systemd(environ, root=tmp_path)[:3] == [str(program), "--user", "--scope"]
    assert asking_systemd({}, root=tmp_path) == []


def test_inside_of_the_namespace_the_installation_is_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {"HOME": "/home/ada", "AOS_ROOTLESS_UID": "1000"}
    monkeypatch.setattr("posix.getuid", lambda: 0)
    assert user_id(inside) == 1000
    config = load_config(inside)
    assert config.root == Path("/home/ada/.local/share/aos")
    assert config.state == Path("/run/user/1000/aos")
    assert user_id({"AOS_ROOTLESS_UID": "nonsense"}) == 0
    monkeypatch.setattr("posix.getuid", lambda: 1001)
    assert user_id(inside) == 1001  # a variable that came from elsewhere


def test_where_the_state_is_agrees_with_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from aos.client.where import state_directory

    monkeypatch.setattr("posix.getuid", lambda: 0)
    inside = {"HOME": "/home/ada", "AOS_ROOTLESS_UID": "1000"}
    found = state_directory({os.fsencode(name): os.fsencode(value) for name, value in inside.items()})
    assert found == str(load_config(inside).state)
