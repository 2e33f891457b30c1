"""Steps that really execute, seen through a peer that unpacks the image."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from fix_build import Builder

pytestmark = pytest.mark.root


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_copy_places_files_as_docker_does(builder: Builder) -> None:
    context = builder.context(
        {
            "app/main.py": "main",
            "app/lib/a.py": "a",
            "app/link": "-> /etc/passwd",
            "one.txt": "1",
            "two.txt": "2",
        },
        [
            {"copy": {"src": "app", "dest": "/srv/app"}},
            {"copy": {"src": "one.txt", "dest": "/renamed"}},
            {"copy": {"src": "one.txt", "dest": "/dir/"}},
            {"copy": {"src": "one.txt", "dest": "/etc"}},
            {"copy": {"src": ["one.txt", "two.txt"], "dest": "/both/"}},
            {"copy": {"src": "*.txt", "dest": "/glob/", "owner": "7:8", "mode": "0640"}},
            {"copy": {"src": "one.txt", "dest": "relative/x"}},
        ],
        config={"workDir": "/work"},
    )
    (context / "app/main.py").chmod(0o775)
    (context / "one.txt").chmod(0o600)
    root = builder.unpack(context)
    assert (root / "srv/app/main.py").read_text() == "main"
    assert (root / "srv/app/lib/a.py").read_text() == "a"
    assert (root / "srv/app/link").readlink().as_posix() == "/etc/passwd"
    for name in ("renamed", "dir/one.txt", "etc/one.txt", "both/one.txt", "work/relative/x"):
        assert (root / name).read_text() == "1", name
    assert (root / "both/two.txt").read_text() == "2"
    assert (_mode(root / "srv/app/main.py"), _mode(root / "renamed"), _mode(root / "dir")) == (
        0o755,
        0o644,
        0o755,
    )
    glob = (root / "glob/two.txt").stat()
    assert (glob.st_uid, glob.st_gid, stat.S_IMODE(glob.st_mode)) == (7, 8, 0o640)
    assert (root / "renamed").stat().st_mtime == 0


def test_copy_keeps_what_a_base_says_of_its_directories(builder: Builder) -> None:
    base = builder.context(
        {},
        [{"run": "mkdir -p /data/in && chmod 1777 /data && chown 5:6 /data/in && ln -s data/in /alias"}],
        name="base",
    )
    builder.build(base, "-t", "base:1")
    root = builder.unpack(
        builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/alias/"}}], base="base:1")
    )
    assert (root / "data/in/f").read_text() == "x"
    assert (root / "alias").is_symlink()
    assert _mode(root / "data") == 0o1777
    assert (root / "data/in").stat().st_uid == 5


def test_stages_give_files_to_each_other(builder: Builder) -> None:
    context = builder.context(
        {"src.txt": "source"},
        [{"copy": {"from": "make", "src": ["/out/*", "/bin/true"], "dest": "/result/"}}],
        base="scratch",
        stages=[
            {
                "name": "make",
                "from": "busybox:1",
                "steps": [
                    {"copy": {"src": "src.txt", "dest": "/in/"}},
                    {"run": "mkdir /out && tr a-z A-Z < /in/src.txt > /out/made && chmod 0751 /out/made"},
                ],
            }
        ],
    )
    root = builder.unpack(context)
    assert sorted(path.name for path in root.iterdir()) == ["result"]
    assert (root / "result/made").read_text() == "SOURCE"
    assert _mode(root / "result/made") == 0o751
    assert (root / "result/true").readlink().as_posix() == "busybox"


def test_an_image_gives_files_as_a_stage_does(builder: Builder) -> None:
    context = builder.context(
        {}, [{"copy": {"from": "busybox:1", "src": "/bin/busybox", "dest": "/"}}], base="scratch"
    )
    assert [path.name for path in builder.unpack(context).iterdir()] == ["busybox"]


def test_run_sees_its_environment_and_leaves_only_its_work(builder: Builder) -> None:
    context = builder.context(
        {},
        [
            {
                "run": "env > /seen; pwd >> /seen; rm /bin/yes; echo changed >> /etc/group; mkdir -p /empty/dir"
            },
            {"run": ["/bin/sh", "-c", "id -u > /id; ip link > /links"]},
            {"run": "true"},
            {"run": {"command": "id -u > /tmp/user", "user": "65534", "env": {"A": "1"}, "workDir": "/tmp"}},
        ],
        config={"env": {"FROM_CONFIG": "yes"}, "workDir": "/here"},
    )
    # a place that anybody may write to, for the step that is not root
    (context / "Agentfile").write_text(
        (context / "Agentfile").read_text().replace('"run": "true"', '"run": "mkdir -m 1777 /tmp"')
    )
    root = builder.unpack(context)
    seen = (root / "seen").read_text().splitlines()
    assert {"FROM_CONFIG=yes", "SOURCE_DATE_EPOCH=0", "/here"} <= set(seen)
    assert not (root / "bin/yes").is_symlink()
    assert (root / "bin/true").is_symlink()
    assert (root / "etc/group").read_text().endswith("changed\n")
    assert (root / "empty/dir").is_dir()
    assert (root / "id").read_text() == "0\n"
    assert [line.split(":")[1].strip() for line in (root / "links").read_text().splitlines()[::2]] == ["lo"]
    assert (root / "tmp/user").read_text() == "65534\n"
    assert {path.name for path in root.iterdir()} <= {
        "bin", "etc", "seen", "empty", "id", "links", "tmp", "here"
    }  # fmt: skip


def test_a_step_that_changes_nothing_makes_no_layer(builder: Builder) -> None:
    before = builder.context({}, [], name="before")
    after = builder.context({}, [{"run": "true"}], name="after")

    def layers(context: Path) -> int:
        return len(json.loads((builder.layout(context) / "layers.json").read_text())["layers"])

    assert layers(before) == layers(after)


def test_an_unchanged_build_executes_nothing(builder: Builder) -> None:
    context = builder.context(
        {"a": "1", "b": "1"}, [{"copy": {"src": "a", "dest": "/a"}}, {"run": "wc /a > /n"}]
    )
    first = builder.build(context)
    again = builder.build(context)
    assert first.out == again.out
    assert again.err.count(": cached") == 2
    assert ": found" in again.err
    assert "done in" not in again.err
    (context / "b").write_text("not copied by any step")
    assert "done in" not in builder.build(context).err
    (context / "a").write_text("2")
    assert builder.build(context).err.count("done in") == 2
    (context / "a").write_text("1")
    assert builder.build(context).out == first.out
    assert builder.build(context, "--no-cache").err.count("done in") == 2


def test_keys_chain_on_results(builder: Builder) -> None:
    steps = [{"run": "wc -c < /dev/null > /n"}, {"run": "cat /n > /m"}]
    context = builder.context({}, steps)
    builder.build(context)
    steps[0] = {"run": "printf '0\\n' > /n"}
    changed = builder.build(builder.context({}, steps)).err
    assert changed.count("done in") == 1, changed


def test_quiet_prints_the_digest_and_nothing_else(builder: Builder) -> None:
    result = builder.aos("build", "-q", builder.context({}, [{"run": "echo hello"}]))
    assert (result.out[:7], len(result.out), result.err) == ("sha256:", 72, "")


def test_a_package_gets_every_name_that_is_asked_for(builder: Builder) -> None:
    context = builder.context({}, [{"run": "echo hello > /hello"}])
    result = builder.build(context, "-t", "one:1", "-t", "two:2", "--tag", "one:1")
    names = {
        entry["reference"]: entry["digest"] for entry in builder.aos("packages", "ls", "-o", "json").json
    }
    assert names["one:1"] == names["two:2"] == result.out.strip()
    assert "it:1.0.0" not in names
    assert result.err.count("built ") == 2


def test_plain_progress_shows_output_as_it_comes(builder: Builder) -> None:
    result = builder.build(builder.context({}, [{"run": "echo out; echo err >&2; printf 'no end'"}]))
    lines = [re.sub(r" \d+\.\d+ ", " ", line, count=1) for line in result.err.splitlines()]
    assert {"#2 | out", "#2 | err", "#2 | no end"} <= set(lines)


def test_a_layout_on_disk_is_a_base(builder: Builder) -> None:
    layout = builder.layout(builder.context({}, [{"run": "echo base > /base"}], name="one"))
    context = builder.context({}, [{"run": "cat /base > /copy"}], name="two", base=f"oci:{layout}:1.0.0")
    assert (builder.unpack(context) / "copy").read_text() == "base\n"
    relative = builder.context({}, [], name="three", base="oci:../one.layout")
    builder.build(relative)


def test_the_package_inherits_what_its_base_says(builder: Builder) -> None:
    base = builder.context(
        {},
        [],
        name="base",
        config={"env": {"A": "base", "B": "base"}, "workDir": "/w", "user": "65534"},
        entrypoint={"command": ["/bin/echo"], "args": ["x"]},
    )
    builder.build(base, "-t", "base:1")
    context = builder.context({}, [], base="base:1", config={"env": {"B": "own"}})
    text = json.loads((context / "Agentfile").read_text())
    del text["entrypoint"]
    (context / "Agentfile").write_text(json.dumps(text))
    layout = builder.layout(context)
    manifest = json.loads(
        _blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])
    )
    config = json.loads(_blob(layout, manifest["config"]["digest"]))["config"]
    assert config["Env"] == ["A=base", "B=own"]
    assert (config["WorkingDir"], config["User"]) == ("/w", "65534")
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/echo"], ["x"])


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def test_labels_and_the_file_of_the_digest(builder: Builder, tmp_path: Path) -> None:
    metadata = {"name": "it", "version": "1.0.0", "labels": {"team": "a", "kept": "1"}}
    context, file = builder.context(metadata=metadata), tmp_path / "digest"
    words = ("--label", "team=b=c", "--label", "empty", "--iidfile", file)
    assert builder.build(context, *words).out == file.read_text() + "\n"
    config = json.loads(
        subprocess.run(
            ["skopeo", "inspect", "--config", f"oci:{builder.layout(context, *words)}:1.0.0"],
            check=True,
            capture_output=True,
        ).stdout
    )
    labels = config["config"]["Labels"]
    assert (labels["team"], labels["kept"], labels["empty"]) == ("b=c", "1", "")
    ours = builder.build(context, "--label", "aos.openos.dev/definition={}", check=2)
    assert "belongs to aos" in ours.err
    lost = builder.build(context, *words, "--iidfile", tmp_path / "missing/digest", check=2)
    assert "cannot be written" in lost.err and file.read_text() in lost.err
