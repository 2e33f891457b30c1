"""The build cache: shared with machines that never built, damaged, bounded, listed and pruned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from fix_installation import new_installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fix_build import Builder
    from fix_installation import Installation

pytestmark = pytest.mark.root


@pytest.fixture
def cold() -> Iterator[Installation]:
    """A machine that has built nothing."""
    made = new_installation()
    yield made
    shutil.rmtree(made.root.parent)


@pytest.fixture
def context(builder: Builder) -> Path:
    """From nothing, so that a cold machine needs no base; two stages, one of which gives one small file."""
    busybox = shutil.which("busybox")
    assert busybox
    base = [
        {"copy": {"src": "busybox", "dest": "/bin/"}},
        {"run": ["/bin/busybox", "--install", "-s", "/bin"]},
    ]
    made = builder.context(
        {},
        [
            {"copy": {"from": "tools", "src": "/small", "dest": "/"}},
            {"run": "echo executed > /run"},
        ],
        base="base",
        stages=[
            {"name": "base", "from": "scratch", "steps": base},
            {
                "name": "tools",
                "from": "base",
                "steps": [{"copy": {"src": "large", "dest": "/"}}, {"run": "echo 1 > /small"}],
            },
        ],
    )
    shutil.copy2(busybox, made / "busybox")
    (made / "large").write_bytes(os.urandom(3_000_000))
    return made


def test_a_cold_machine_with_an_imported_cache_executes_nothing(
    builder: Builder, context: Path, cold: Installation, tmp_path: Path
) -> None:
    first = builder.build(context, "--cache-to", tmp_path / "cache")
    assert "exported 6 results" in first.err
    again = builder.build(context, "--cache-to", tmp_path / "cache")
    assert "exported 0 results" in again.err, "only what is not there yet"
    plan = cold("build", "--plan=json", "--cache-from", tmp_path / "cache", context).json
    assert {vertex["state"] for vertex in plan["vertices"]} == {"cached"}
    assert list((cold.root / "content/blobs/sha256").iterdir()) == [], "a plan copies nothing"
    built = cold("build", "--progress", "plain", "--cache-from", tmp_path / "cache", context)
    assert built.out == first.out
    assert built.err.count(": cached") == 6
    assert "done in" not in built.err
    assert cold("verify", "it:1.0.0").code == 0
    sizes = [file.stat().st_size for file in (cold.root / "content/blobs/sha256").iterdir()]
    assert max(sizes) < 2_500_000, "the stage's large layer was not asked for"
    alone = cold("build", "--progress", "plain", "--cache-from", tmp_path / "nowhere", context, check=False)
    assert "there is no build cache in" in alone.err


def test_a_cache_goes_on_from_one_directory_to_the_next_whole(
    builder: Builder, context: Path, cold: Installation, tmp_path: Path
) -> None:
    first = builder.build(context, "--cache-to", tmp_path / "one")
    cold("build", "--cache-from", tmp_path / "one", "--cache-to", tmp_path / "two", context)
    shutil.rmtree(cold.root)
    built = cold("build", "--progress", "plain", "--cache-from", tmp_path / "two", context)
    assert built.out == first.out
    assert "done in" not in built.err


def test_what_is_missing_is_executed_on_what_was_imported(
    builder: Builder, context: Path, cold: Installation, tmp_path: Path
) -> None:
    builder.build(context, "--cache-to", tmp_path / "cache")
    definition = json.loads((context / "Agentfile").read_text())
    definition["steps"].append({"copy": {"from": "tools", "src": "/large", "dest": "/"}})
    (context / "Agentfile").write_text(json.dumps(definition))
    built = cold("build", "--progress", "plain", "--cache-from", tmp_path / "cache", context)
    assert built.err.count("done in") == 1
    assert built.out == builder.build(context).out


def test_steps_at_the_same_time_need_the_same_layer(
    builder: Builder, context: Path, cold: Installation, tmp_path: Path
) -> None:
    builder.build(context, "--cache-to", tmp_path / "cache")
    definition = json.loads((context / "Agentfile").read_text())
    names = ["one", "two", "three"]
    definition["stages"] += [
        {"name": name, "from": "tools", "steps": [{"run": f"wc -c < /large > /{name}"}]} for name in names
    ]
    definition["steps"] += [{"copy": {"from": name, "src": f"/{name}", "dest": "/"}} for name in names]
    (context / "Agentfile").write_text(json.dumps(definition))
    built = cold("build", "--jobs", "3", "--cache-from", tmp_path / "cache", context)
    assert built.out == builder.build(context).out


@pytest.mark.parametrize("damage", ["truncated", "changed", "longer", "gone", "entry"])
def test_a_hostile_or_damaged_cache_costs_time_and_nothing_else(
    builder: Builder, context: Path, cold: Installation, tmp_path: Path, damage: str
) -> None:
    first = builder.build(context, "--cache-to", tmp_path / "cache")
    for file in (tmp_path / "cache/blobs/sha256").iterdir():
        data = file.read_bytes()
        if damage == "truncated":
            file.write_bytes(data[:-1])
        elif damage == "changed":
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif damage == "longer":
            file.write_bytes(data + data)
        elif damage == "gone":
            file.unlink()
    if damage == "entry":
        for file in (tmp_path / "cache/entries").rglob("*.json"):
            raw = json.loads(file.read_text())
            raw["layer"]["diff_id"] = "sha256:" + "0" * 64
            file.write_text(json.dumps(raw))
    built = cold("build", "--progress", "plain", "--cache-from", tmp_path / "cache", context)
    assert "warning: a result in the build cache is damaged and is made again" in built.err
    assert built.out == first.out
    assert cold("verify", "it:1.0.0").code == 0
    assert list((cold.root / "content/ingest").iterdir()) == []


def test_a_layer_whose_bytes_have_changed_is_made_again_with_a_warning(
    builder: Builder, context: Path
) -> None:
    first = builder.build(context)
    for blob in (builder.aos.root / "content/blobs/sha256").iterdir():
        data = bytearray(blob.read_bytes())
        if data[:2] == b"\x1f\x8b":
            data[len(data) // 2] ^= 1
            blob.chmod(0o600)
            blob.write_bytes(data)
    again = builder.build(context, check=0)
    assert "warning: a result in the build cache is damaged" in again.err
    assert again.out == first.out
    assert builder.aos("verify", "it:1.0.0").code == 0
    assert "warning" not in builder.build(context).err


@pytest.mark.parametrize("option", ["--cache-from", "--cache-to"])
def test_a_cache_in_the_way_of_docker_is_refused_and_makes_no_odd_directory(
    builder: Builder, context: Path, tmp_path: Path, option: str
) -> None:
    (where := tmp_path / "elsewhere").mkdir()
    result = builder.aos("build", option, f"type=local,dest={where}/c", context, check=2, cwd=where)
    assert f"{option} DIR" in result.err
    assert list(where.iterdir()) == []
    builder.aos("build", option, "./type=x", context, cwd=where)


def test_a_full_disk_of_the_output_is_named_and_the_package_is_there(
    builder: Builder, context: Path, tmp_path: Path
) -> None:
    (small := tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        result = builder.build(context, "-o", small / "out", check=8)
    finally:
        subprocess.run(["umount", small], check=True)
    assert f"{small / 'out'}" in result.err.split("aos build:")[1]
    assert "nothing of it was kept" not in result.err
    assert builder.aos("verify", "it:1.0.0").code == 0


def test_the_cache_is_listed_measured_and_pruned(builder: Builder, context: Path) -> None:
    builder.build(context)
    aos = builder.aos
    items = aos("cache", "ls", "-o", "json").json
    mine = [item for item in items if item["package"] == "it"]
    assert {item["step"] for item in mine} >= {"run echo executed > /run", "copy busybox /bin/"}
    assert "run echo executed" in aos("cache", "ls").out
    used = aos("cache", "du", "-o", "json").json
    assert used["results"]["count"] == len([item for item in items if item["kind"] == "result"])
    assert used["results"]["bytes"] > 3_000_000
    tools = aos("cache", "ls", "-o", "json", "--filter", "stage=tools").json
    removed = aos("cache", "prune", "-o", "json", "--filter", "stage=tools").json
    assert [item["id"] for item in removed] == [item["id"] for item in tools]
    assert builder.build(context).err.count("done in") == len(tools) == 2
    assert aos("cache", "prune", "-o", "json", "--max-age", "1h", "--max-size", "1g").json == []
    aos("cache", "prune", "--keep-last", "2")
    assert aos("cache", "du", "-o", "json").json["results"]["count"] == 2
    assert "did you mean stage=x" in aos("cache", "ls", "--filter", "stag=x", check=2).err


def test_a_build_keeps_the_cache_within_its_bound(builder: Builder) -> None:
    config = builder.contexts / "config.toml"
    config.write_text('[build]\ncache = "3MB"\n')
    aos = type(builder.aos)(builder.aos.config, {"AOS_CONFIG": str(config)})
    for number in range(4):
        script = f"head -c 1000000 /dev/urandom > /{number}"
        aos("build", builder.context({}, [{"run": script}], name=f"context-{number}"))
    items = aos("cache", "ls", "-o", "json").json
    assert sum(item["size"] for item in items) <= 3_000_000
    assert [item["step"][-2:] for item in items][:2] == ["/3", "/2"]
    assert "config-invalid" in aos_with(builder, '[build]\ncache = "much"\n')


def aos_with(builder: Builder, text: str) -> str:
    config = builder.contexts / "wrong.toml"
    config.write_text(text)
    aos = type(builder.aos)(builder.aos.config, {"AOS_CONFIG": str(config)})
    return aos("cache", "ls", "-o", "json", check=2).err


def test_targets_fresh_stages_and_platforms(builder: Builder, context: Path) -> None:
    builder.build(context)
    target = builder.build(context, "--target", "tools")
    assert "done in" not in target.err, "what a target needs is what the whole needs"
    assert "built localhost/it" in target.err or "it:1.0.0-tools" in target.err
    assert builder.aos("packages", "inspect", "it:1.0.0-tools").code == 0
    fresh = builder.build(context, "--no-cache-filter", "base")
    assert "copy busybox /bin/: cached" not in fresh.err
    assert "run echo executed > /run: cached" in fresh.err, "the same bytes: nothing after it is executed"
    assert "stages: base, tools" in builder.build(context, "--target", "tool", check=2).err
    assert "stages: base, tools" in builder.build(context, "--no-cache-filter", "x", check=2).err
    foreign = builder.build(context, "--platform", "plan9/mips", check=12)
    assert "cannot build for 'plan9/mips'" in foreign.err
    builder.build(
        context, "--platform", "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    )
