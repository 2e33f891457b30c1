"""`copy` as a whole: from a context or a stage to what a peer unpacks."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from fix_build import Builder

pytestmark = pytest.mark.root

USERS = "printf 'root:x:0:0::/:/bin/sh\\nagent:x:1234:5678::/:/bin/sh\\n' > /etc/passwd; echo 'staff:x:77:' > /etc/group"


def _owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_owners_may_be_names_of_the_image(builder: Builder) -> None:
    steps = [
        {"run": USERS},
        *(
            {"copy": {"src": "dir", "dest": f"/made/{number}/", "owner": owner}}
            for number, owner in enumerate(("agent", "agent:staff", "5:staff", "agent:6", 9, "0:0"))
        ),
    ]
    root = builder.unpack(builder.context({"dir/f": "x"}, steps))
    expected = [(1234, 5678), (1234, 77), (5, 77), (1234, 6), (9, 9), (0, 0)]
    assert [_owner(root / f"made/{number}/f") for number in range(6)] == expected
    assert [_owner(root / f"made/{number}") for number in range(6)] == expected
    assert _owner(root / "made") == (1234, 5678), "a directory that is made on the way"


def test_an_owner_that_the_image_does_not_know_is_named(builder: Builder) -> None:
    context = builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/f", "owner": "nobody-here"}}])
    result = builder.build(context, check=2)
    assert "nobody-here" in result.err
    assert "Traceback" not in result.err


def test_names_of_one_file_stay_names_of_one_file(builder: Builder) -> None:
    context = builder.context(
        {"a/one": "shared", "b": "alone"},
        [
            {"copy": {"src": ["a", "z"], "dest": "/data/"}},
            {"copy": {"src": "a/one", "dest": "/single"}},
        ],
    )
    for name in ("a/two", "z"):
        (context / name).hardlink_to(context / "a/one")
    root = builder.unpack(context)
    assert {(root / f"data/{name}").stat().st_ino for name in ("one", "two", "z")} == {
        (root / "data/one").stat().st_ino
    }
    assert (root / "data/z").read_text() == "shared"
    assert (root / "single").stat().st_nlink == 1


def test_a_stage_gives_modes_capabilities_attributes_and_hard_links(builder: Builder) -> None:
    """A capability that a layer of a base carries; `run` may not set one."""
    layout = _layout_with_attributes(builder)
    root = builder.unpack(
        builder.context(
            {},
            [{"copy": {"from": "made", "src": "/srv", "dest": "/got", "owner": "3:4"}}],
            stages=[{"name": "made", "from": f"oci:{layout}:1.0.0"}],
        )
    )
    ping = root / "got/ping"
    assert os.getxattr(ping, "security.capability")[:4] == b"\x01\x00\x00\x02"
    assert (_owner(ping), stat.S_IMODE(ping.stat().st_mode)) == ((3, 4), 0o4711)
    assert ping.stat().st_ino == (root / "got/ping2").stat().st_ino
    assert os.getxattr(root / "got", "user.note") == b"of a directory"
    assert stat.S_IMODE((root / "got").stat().st_mode) == 0o1770


def _layout_with_attributes(builder: Builder) -> Path:
    """An image whose layer was made by a peer."""
    import subprocess

    layout, bundle = builder.contexts / "peer", builder.contexts / "peer.bundle"
    image = f"{layout}:1.0.0"

    def umoci(*words: str) -> None:
        subprocess.run(["umoci", *words], check=True, capture_output=True)

    umoci("init", "--layout", str(layout))
    umoci("new", "--image", image)
    umoci("unpack", "--image", image, str(bundle))
    srv = bundle / "rootfs/srv"
    srv.mkdir()
    srv.chmod(0o1770)
    (srv / "ping").write_text("x")
    (srv / "ping").chmod(0o4711)
    os.setxattr(
        srv / "ping", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    os.setxattr(srv, "user.note", b"of a directory")
    (srv / "ping2").hardlink_to(srv / "ping")
    umoci("repack", "--image", image, str(bundle))
    return layout


def test_from_a_context_attributes_and_dates_are_left_behind(builder: Builder) -> None:
    context = builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/f"}}])
    first = builder.build(context).out
    os.setxattr(context / "f", "user.note", b"x")
    os.utime(context / "f", (5, 5))
    (context / "f").chmod(0o600)
    os.chown(context / "f", 7, 7)
    again = builder.build(context, "--no-cache")
    assert again.out == first


def test_sparse_and_large_files(builder: Builder) -> None:
    context = builder.context({"random": os.urandom(3 << 20)}, [{"copy": {"src": ".", "dest": "/d/"}}])
    with (context / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(65 << 20)
    root = builder.unpack(context)
    assert (root / "d/random").read_bytes() == (context / "random").read_bytes()
    data = (root / "d/sparse").read_bytes()
    assert (len(data), data[64 << 20 :][:3], data.count(0)) == (65 << 20, b"end", (65 << 20) - 3)


def test_names_that_are_not_text(builder: Builder) -> None:
    context = builder.context({}, [{"copy": {"src": "d", "dest": "/d"}}])
    names = [
        b"line\nbreak",
        b"invalid-\xff\xfe",
        "kaffee-☕".encode(),
        b" blank ",
        b"-dash",
        b"back\\slash",
        b"\x1b[31m",
    ]
    (context / "d").mkdir()
    for name in names:
        (context / "d" / os.fsdecode(name)).write_bytes(name)
    root = builder.unpack(context)
    assert {os.fsencode(path.name) for path in (root / "d").iterdir()} == set(names)
    for name in names:
        assert (root / "d" / os.fsdecode(name)).read_bytes() == name


@pytest.mark.parametrize("name", [b"pipe\n\x1b[31mred", b"pipe-\xff"])
def test_a_message_about_such_a_name_can_be_printed(builder: Builder, name: bytes) -> None:
    context = builder.context({}, [{"copy": {"src": "d", "dest": "/d"}}])
    (context / "d").mkdir()
    os.mkfifo(context / "d" / os.fsdecode(name))
    result = builder.build(context, check=2)
    assert "FIFO" in result.err
    assert "\x1b" not in result.err
    assert "Traceback" not in result.err
    (context / "d" / os.fsdecode(name)).unlink()
    (context / "d" / os.fsdecode(name)).write_text("x")
    (context / "Agentfile").write_text(
        (context / "Agentfile")
        .read_text()
        .replace('"/d"', '"/bin"')
        .replace('"d"', '["d/*", "Agentfile/.."]')
    )
    assert "Traceback" not in builder.build(context, check=2).err


@pytest.mark.parametrize("kind", ["socket", "device"])
def test_what_is_no_file(builder: Builder, kind: str) -> None:
    context = builder.context({"d/f": "x"}, [{"copy": {"src": ".", "dest": "/d/"}}])
    with contextlib.chdir(context / "d"), socket.socket(socket.AF_UNIX) as server:
        if kind == "socket":
            server.bind("s")
        else:
            os.mknod("s", 0o60600, os.makedev(7, 200))
    result = builder.build(context, check=2)
    assert "'d/s' is a " in result.err
    assert ".aosignore" in result.err
    (context / ".aosignore").write_text("d/s")
    builder.build(context)


@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_changes_during_the_build_is_said_and_nothing_is_kept(
    builder: Builder, large: bool
) -> None:
    context = builder.context(
        {"f": b"x" * (300_000 if large else 3)},
        [
            {"run": "echo started; while [ ! -e /never ] && [ $((i=i+1)) -lt 20 ]; do sleep .1; done"},
            {"copy": {"src": "f", "dest": "/f"}},
        ],
    )
    process = builder.aos.start("build", "--progress", "plain", context)
    _wait_for(process, b"| started")
    (context / "f").write_bytes(b"y" * (300_000 if large else 3))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 9, err
    assert b"'f' changed while it was read" in err
    assert b"Traceback" not in err
    assert builder.left_over() == []
    assert (builder.unpack(context) / "f").read_bytes()[:1] == b"y"


def test_a_copy_that_fails_leaves_nothing(builder: Builder) -> None:
    def stored() -> set[Path]:
        return {
            path for name in ("blobs", "ingest") for path in (builder.aos.root / "content" / name).rglob("*")
        }

    before = stored()
    context = builder.context({"d/f": "x"}, [{"copy": {"src": "d", "dest": "/bin/busybox"}}])
    assert "not a directory" in builder.build(context, check=2).err
    assert builder.left_over() == []
    assert stored() == before


def test_what_is_remembered_of_a_context_may_be_damaged(builder: Builder) -> None:
    context = builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/f"}}])
    directory = builder.aos.root / "build/digests"
    before = set(directory.iterdir())
    time.sleep(0.05)  # the file has been left alone for longer than a tick
    first = builder.build(context).out
    (memory,) = set(directory.iterdir()) - before
    data = memory.read_bytes()
    assert builder.build(context).out == first
    memory.write_bytes(data[:-1])
    assert builder.build(context).out == first
    assert memory.read_bytes() == data


def test_a_copy_needs_no_tools(builder: Builder) -> None:
    """Its layer is written directly: no sandbox, and no directory of files."""
    context = builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/new/f"}}], base="scratch")
    layout = builder.layout(context)
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    assert len(manifest["layers"]) == 1


def _wait_for(process: subprocess.Popen[bytes], words: bytes) -> None:
    assert process.stderr is not None
    seen = b""
    while words not in seen:
        line = os.read(process.stderr.fileno(), 4096)
        assert line, seen
        seen += line
