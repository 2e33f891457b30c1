"""The verbs packages, verify, push and pull as a person types them."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from aos.compose.packages import content_store, local_registry
from package_making import make_package

if TYPE_CHECKING:
    from pathlib import Path

    from aos.package import Package
    from fix_installation import Installation
    from fix_registry import Asked, StubRegistry


@pytest.fixture
def package(installation: Installation) -> Package:
    content = content_store(installation.config)
    made = make_package(content.blobs)
    for reference in ("hello:1.2.0", "hello:stable"):
        local_registry(installation.config, content).tag(
            reference, made.manifest_digest, name=made.name, version=made.version, size=made.size
        )
    return made


def test_an_empty_registry(installation: Installation) -> None:
    assert installation("packages", "ls").out.split() == ["REFERENCE", "VERSION", "DIGEST", "SIZE", "CREATED"]
    assert installation("packages", "ls", "-o", "json").json == []


def test_ls(installation: Installation, package: Package) -> None:
    head, first, second = installation("packages", "ls").out.splitlines()
    assert head.split() == ["REFERENCE", "VERSION", "DIGEST", "SIZE", "CREATED"]
    assert first.split()[:3] == ["hello:1.2.0", "1.2.0", package.manifest_digest[7:19]]
    assert second.startswith("hello:stable")
    assert installation("packages", "ls", "-q").out == package.manifest_digest + "\n"
    facts = installation("packages", "ls", "-o", "json").json[0]
    assert facts["digest"] == package.manifest_digest
    assert facts["size"] == package.size
    assert facts["created_at"] > 1_500_000_000


def test_inspect(installation: Installation, package: Package) -> None:
    shown = installation("packages", "inspect", package.manifest_digest[7:15]).out
    for text in (
        package.manifest_digest,
        "hello:1.2.0 hello:stable",
        "Says hello",
        "/bin/hello world",
        "run: make",
    ):
        assert text in shown
    facts = installation("packages", "inspect", "hello:stable", "-o", "json").json
    assert facts["definition"] == package.definition
    assert (
        installation("packages", "inspect", "helo:stable", check=3).err.count("did you mean hello:stable")
        == 1
    )


def test_rm_forgets_names_one_by_one(installation: Installation, package: Package) -> None:
    removed = installation("packages", "rm", "nothing:1", "hello:stable", check=3)
    assert removed.out == "hello:stable\n"
    assert "nothing:1" in removed.err
    assert installation("packages", "rm", package.manifest_digest).out == "hello:1.2.0\n"
    assert installation("verify", package.manifest_digest).code == 0


def test_verify_says_what_it_checked(installation: Installation, package: Package) -> None:
    shown = installation("verify", "hello:1.2.0").out
    assert shown.count("\nok") + shown.startswith("ok") == 4
    assert "unsigned" in shown
    facts = installation("verify", "hello:1.2.0", "-o", "json").json
    assert (facts["whole"], facts["signed"], len(facts["checks"])) == (True, False, 4)


def damage(installation: Installation, package: Package) -> None:
    blob = content_store(installation.config).blobs.path(package.layers[0].digest)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)


def test_verify_finds_damage(installation: Installation, package: Package) -> None:
    damage(installation, package)
    result = installation("verify", "hello:1.2.0", check=13)
    assert result.out.count("bad") == 1
    assert result.out.count("ok") == 3
    assert "1 of 4 checks failed" in result.err
    facts = installation("verify", "hello:1.2.0", "-o", "json", check=13).json
    assert not facts["whole"]
    assert [check["code"] for check in facts["checks"] if check["code"]]


def test_a_sidecar_that_lies_is_refused_everywhere(
    installation: Installation, package: Package, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    installation("push", "hello:1.2.0", f"oci:{layout}")
    text = (layout / "manifest.json").read_text()
    (layout / "manifest.json").write_text(text.replace("Says hello", "Says goodbye"))
    for words in (["verify", str(layout)], ["pull", f"oci:{layout}"]):
        assert "metadata.description" in installation(*words, check=13).err
    assert installation("push", "-q", "hello:1.2.0", f"oci:{layout}").out == package.manifest_digest + "\n"
    assert installation("pull", f"oci:{layout}", "-o", "json").json == [
        {"reference": "hello:1.2.0", "digest": package.manifest_digest}
    ]


def test_a_directory_of_somebody_else(installation: Installation, package: Package, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    assert "not empty" in installation("push", "hello:1.2.0", f"oci:{tmp_path}", check=4).err


def test_a_damaged_index_says_the_way_back(installation: Installation, package: Package) -> None:
    index = installation.root / "registry/index.json"
    index.write_text("{")
    for words in (["packages", "ls"], ["packages", "rm", "hello:1.2.0"], ["verify", "hello:1.2.0"]):
        error = (
            json.loads(installation(*words, "-o", "json", check=False).err.splitlines()[-1])
            if "ls" in words
            else {}
        )
        result = installation(*words, check=13)
        assert f"mv {index}.previous {index}" in result.err
        assert not error or error["error"]["code"] == "registry-index-damaged"
    assert index.read_text() == "{"


def test_ctrl_c_in_a_pull_leaves_nothing(
    installation: Installation, package: Package, stub_registry: StubRegistry
) -> None:
    where = f"{stub_registry.host}/team/hello:1"
    installation("push", "hello:1.2.0", where)
    installation("packages", "rm", package.manifest_digest)
    content = content_store(installation.config)
    for layer in package.layers:
        content.blobs.delete(layer.digest)
    asked_for, go_on = threading.Event(), threading.Event()

    def hang(asked: Asked) -> None:
        asked_for.set()
        go_on.wait(30)

    stub_registry.fault(hang, path="blobs", times=9)
    pull = installation.start("pull", where)
    assert asked_for.wait(30)
    pull.send_signal(signal.SIGINT)
    out, err = pull.communicate(timeout=30)
    go_on.set()
    assert (pull.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    for folder in ("leases", "ingest"):
        assert not list((content.root / folder).iterdir())
    assert installation("packages", "ls", "-q").out == ""
