"""`aos cp`: docker's rules, and that nothing on either side leads out of where it belongs."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fix_installation import Installation

pytestmark = pytest.mark.root


@pytest.fixture
def agent(aos: Installation) -> Installation:
    """The installation with an agent `a` that runs."""
    aos("run", "-d", "--name", "a", "busybox:1", "-c", "while :; do sleep 0.05; done")
    return aos


def inside(aos: Installation, script: str) -> str:
    return aos("exec", "a", "sh", "-c", script).out


def test_files_and_directories_both_ways(agent: Installation, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/file").write_text("content")
    (tree / "deep/again").hardlink_to(tree / "deep/file")
    (tree / "link").symlink_to("deep/file")
    (tree / "deep/file").chmod(0o750)
    os.chown(tree / "deep/file", 7, 8)
    agent("cp", tree, "a:/new")  # there is no /new: it becomes one
    assert inside(agent, "cat /new/link; stat -c '%a %u %g %h' /new/deep/file") == "content750 0 0 2\n"
    agent("cp", "-a", tree, "a:/new")  # there is one: into it
    assert inside(agent, "stat -c '%u %g' /new/tree/deep/file") == "7 8\n"
    agent("cp", f"{tree}/.", "a:/new/deep")  # what is in it
    assert inside(agent, "cat /new/deep/link") == "content"
    agent("cp", tree / "deep/file", "a:/new/renamed")
    agent("cp", "a:/new/renamed", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"
    agent("cp", "a:new", tmp_path)
    assert (tmp_path / "new/tree/link").readlink() == tree.joinpath("link").readlink()
    agent("cp", "-L", "a:/new/link", tmp_path / "followed")
    assert not (tmp_path / "followed").is_symlink()
    (tmp_path / "back").write_text("changed")
    agent("cp", tmp_path / "back", "a:/new/renamed")
    assert inside(agent, "cat /new/renamed") == "changed"


def test_streams(agent: Installation, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name in ("x/one", "two"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"data"))
    agent("cp", "-", "a:/etc", input=stream.getvalue())
    assert inside(agent, "cat /etc/x/one /etc/two") == "datadata"
    command = agent.command("cp", "a:/etc/x", "-")
    packed = subprocess.run(command, env=agent.environment(), capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        assert tar.getnames() == ["x", "x/one"]
    leads_out = io.BytesIO()
    with tarfile.open(fileobj=leads_out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x/../../out"))
    assert "leads out" in agent("cp", "-", "a:/etc", input=leads_out.getvalue(), check=2).err
    assert "not a tar archive" in agent("cp", "-", "a:/etc", input=b"x" * 2000, check=2).err


def test_what_is_wrong_is_told(agent: Installation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir").mkdir()
    for source, target, code, words in (
        ("a:/missing", tmp_path, 3, "there is no /missing"),
        (tmp_path / "missing", "a:/", 3, "there is no"),
        (tmp_path / "file", "a:/no/such/place", 3, "no directory /no/such"),
        (tmp_path / "file", "a:/nowhere/", 3, "no directory"),
        (tmp_path / "dir", "a:/etc/passwd", 5, "is not a directory"),
        (tmp_path / "file", tmp_path / "dir", 2, "one of SOURCE and TARGET"),
        ("a:/x", "b:/x", 2, "one of SOURCE and TARGET"),
        ("absent:/x", tmp_path, 3, "no agent"),
        ("a:/dev/null", tmp_path / "null", 5, "is a device"),
    ):
        assert words in agent("cp", source, target, check=code).err
    assert not (tmp_path / "null").exists()
    agent("stop", "-t", "0", "a")
    assert "not running" in agent("cp", "a:/etc", tmp_path, check=5).err


def test_links_of_the_agent_stay_in_the_agent(agent: Installation, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    (tmp_path / "file").write_text("new")
    inside(agent, f"mkdir -p /d && ln -s {tmp_path} /d/abs && ln -s ../../../../../..{tmp_path} /d/up")
    for link in ("abs", "up"):
        assert "there is no" in agent("cp", f"a:/d/{link}/secret", tmp_path / "got", check=3).err
        agent("cp", tmp_path / "file", f"a:/d/{link}/secret", check=3)
    inside(agent, f"mkdir -p {tmp_path} && echo of the agent > {tmp_path}/secret")
    agent("cp", "a:/d/abs/secret", tmp_path / "got")
    assert (tmp_path / "got").read_text() == "of the agent\n"
    agent("cp", tmp_path / "file", "a:/d/up/secret")
    assert inside(agent, f"cat {tmp_path}/secret") == "new"
    assert secret.read_text() == "of the host"


def test_what_is_unpacked_on_the_host_stays_beneath_the_target(agent: Installation, tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    (target / "d").mkdir(parents=True)
    (target / "d/link").symlink_to(outside)  # what an earlier copy could have brought
    inside(agent, "mkdir -p /d/link && echo bad > /d/link/file && chmod 4755 /d/link/file")
    agent("cp", "a:/d", target, check=False)
    assert list(outside.iterdir()) == []
    agent("cp", "a:/d", tmp_path / "other")
    assert (tmp_path / "other/link/file").stat().st_mode & 0o7777 == 0o755  # not set-user-ID
    agent("cp", "-a", "a:/d", tmp_path / "kept")
    assert (tmp_path / "kept/link/file").stat().st_mode & 0o7777 == 0o4755


def test_a_race_for_a_link_gains_nothing(agent: Installation, tmp_path: Path) -> None:
    """An agent swaps a directory for a link to a path that is there on the host, all the time."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("of the host")
    (tmp_path / "file").write_text("planted")
    inside(
        agent,
        f"mkdir -p /r/real /r/{victim.name} && echo of the agent > /r/real/file && ln -s {victim} /r/link",
    )
    swap = (
        "while [ ! -e /enough ]; do mv -T /r/real /r/d; mv -T /r/d /r/real;"
        " mv -T /r/link /r/d; mv -T /r/d /r/link; done"
    )
    swapping = threading.Thread(target=lambda: agent("exec", "a", "sh", "-c", swap, check=False))
    swapping.start()
    for _ in range(10):
        agent("cp", "a:/r/d/file", tmp_path / "got", check=False)
        agent("cp", tmp_path / "file", "a:/r/d/file", check=False)
        if (tmp_path / "got").exists():
            assert (tmp_path / "got").read_text() in ("of the agent\n", "planted")
        assert (victim / "file").read_text() == "of the host"
    inside(agent, "touch /enough")
    swapping.join()
