"""Locks from end to end: written, honoured, refused, upgraded; with wheels made here and no network at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from aos.build.steps.uv import find_uv
from fix_build import Builder
from fix_installation import new_installation

if TYPE_CHECKING:
    from pathlib import Path

    from fix_python import Python

pytestmark = pytest.mark.root

SHOW = {"run": "python3 -c 'import one; print(one.VERSION)' > /one"}


def _agentfile(context: Path, **fields: object) -> None:
    file = context / "Agentfile"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields, indent=1))


def _pins(context: Path) -> list[str]:
    """NAME VERSION of every pin."""
    lines = (context / "Agentfile.lock").read_text().splitlines()
    return [" ".join(line.split()[1:3]) for line in lines if re.match("  - [a-z].*sha256:", line)]


@pytest.fixture
def context(python: Python) -> Path:
    python.offer("one", "1.0", "two>=1")
    python.offer("two", "1.0")
    steps = [
        {"install": {"pip": ["one"]}},
        {"copy": {"src": "main.py", "dest": "/app/"}},
        SHOW,
    ]
    return python.context({"main.py": "1"}, steps, base="python:1")


def test_steps_below_what_is_locked_get_secrets(python: Python) -> None:
    python.offer("one", "1.0")
    secret = {"command": "test -s /run/secrets/token", "secrets": ["token"]}
    context = python.context({}, [{"run": secret}, {"install": {"pip": ["one"]}}], base="python:1")
    assert "--secret" in python.aos("lock", context, check=False).err
    (context / "token").write_text("a secret")
    python.aos("lock", "--secret", f"id=token,src={context / 'token'}", context)
    assert _pins(context) == ["one 1.0"]


def test_a_lock_is_honoured_when_everything_else_is_gone(python: Python, context: Path) -> None:
    out = python.aos("lock", context).out
    assert "install pip: one 1.0" in out
    assert _pins(context) == ["one 1.0", "two 1.0"]
    locked = python.build(context)
    assert "executed" not in locked.err.replace("0 executed", ""), "aos lock has built it already"
    text = (context / "Agentfile.lock").read_text()

    python.offer("one", "2.0", "two>=1")
    shutil.rmtree(python.wheels)
    python.wheels.mkdir()
    shutil.rmtree(python.aos.root / "build/mounts")
    shutil.rmtree(python.aos.root / "build/cache")
    assert python.offline("build", "-q", "--no-cache", context) == locked.out
    assert (python.unpack(context) / "one").read_text() == "1.0\n"
    assert "is up to date" in python.offline("lock", context)
    assert (context / "Agentfile.lock").read_text() == text


def test_the_same_versions_make_the_same_layers_with_and_without_a_lock(
    python: Python, context: Path
) -> None:
    python.build(context, "-t", "without:1")
    python.aos("lock", context)
    python.build(context, "--no-cache", "-t", "with:1")
    diff_ids = [
        [layer["diff_id"] for layer in python.aos("packages", "inspect", name, "-o", "json").json["layers"]]
        for name in ("without:1", "with:1")
    ]
    assert diff_ids[0] == diff_ids[1]


def test_what_is_new_comes_when_it_is_asked_for(python: Python, context: Path) -> None:
    python.aos("lock", context)
    python.offer("one", "1.1", "two>=1")
    python.offer("two", "1.1")
    assert "is up to date" in python.aos("lock", context).out
    out = python.aos("lock", "--upgrade", "two", context).out
    assert "install pip: two 1.0 -> 1.1" in out
    assert _pins(context) == ["one 1.0", "two 1.1"]
    python.aos("lock", context, "--upgrade")
    assert _pins(context) == ["one 1.1", "two 1.1"]
    failed = python.aos("lock", "--upgrade", "tow", context, check=3)
    assert "did you mean 'two'?" in failed.err


def test_a_step_that_asks_for_more_keeps_the_pins_it_had(python: Python, context: Path) -> None:
    python.aos("lock", context)
    python.offer("one", "1.1", "two>=1")
    python.offer("three", "3.0", "two>=1")
    _agentfile(context, steps=[{"install": {"pip": ["one", "three"]}}, SHOW])

    refused = python.build(context, check=5)
    assert "install pip asks for 'three', which is not in the lock" in refused.err
    assert "aos lock" in refused.err
    checked = python.aos("lock", "--check", context, check=1)
    assert "asks for 'three'" in checked.err
    assert python.build(context, "--no-lock").code == 0

    python.aos("lock", context)
    assert _pins(context) == ["one 1.0", "three 3.0", "two 1.0"]
    assert "fits" in python.aos("lock", "--check", context).out
    python.build(context)


def test_a_file_that_is_kept_nowhere_is_fetched_again_or_said_to_be_gone(
    python: Python, context: Path
) -> None:
    python.aos("lock", context)
    listed = python.aos("cache", "ls", "-o", "json", "--filter", "kind=packages").json
    assert [item["kind"] for item in listed] == ["packages"]
    python.aos("cache", "prune", "--filter", "kind=packages")
    for blob in (python.aos.root / "content/blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"PK":  # what a collection would take now
            blob.unlink()
    python.build(context, "--no-cache")
    python.withdraw("one", "1.0")
    python.offer("one", "1.1")
    python.build(context, "--no-cache")  # kept again
    for blob in (python.aos.root / "content/blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"PK":
            blob.unlink()
    failed = python.build(context, "--no-cache", check=3)
    assert "one==1.0" in failed.err
    assert "aos lock --upgrade one" in failed.err
    shutil.rmtree(python.aos.root / "build/cache")
    assert "install pip: one 1.0 -> 1.1" in python.aos("lock", context).out


def test_a_base_that_moved_is_drift(python: Python, context: Path) -> None:
    python.aos("lock", context)
    other = python.context({"x": "y"}, [{"copy": {"src": "x", "dest": "/"}}], base="python:1", name="other")
    python.build(other, "-t", "python:1")
    refused = python.build(context, check=5)
    assert "the base 'python:1' is sha256:" in refused.err
    assert "python:1" in python.aos("lock", "--check", context, check=1).err
    assert "from: python:1 sha256:" in python.aos("lock", context).out
    python.build(context)


def test_pins_concern_only_their_step(python: Python, context: Path) -> None:
    python.offer("three", "3.0")
    _agentfile(context, steps=[{"install": {"pip": ["three"]}}, {"install": {"pip": ["one"]}}, SHOW])
    python.aos("lock", context)
    python.build(context)
    python.offer("two", "1.1")
    upgraded = python.aos("lock", "--upgrade", "two", context).err
    assert "install pip three: cached" in upgraded
    assert "install pip one: cached" not in upgraded
    assert "3 cached" in python.build(context).err


@pytest.mark.parametrize(
    ("edit", "code", "told"),
    [
        (lambda text: text.replace("agent: it", "agent: other"), 5, "belongs to another Agentfile"),
        (lambda text: text[:-20], 2, "is not sha256: and 64 hexadecimal digits"),
        (lambda text: text.replace("linux/", "plan9/"), 5, "plan9/"),
        (lambda text: text.replace("sha256:", "sha256:0", 2), 2, "Agentfile.lock:7:3: a base is"),
        (lambda text: "<<<<<<< HEAD\n" + text, 2, "Agentfile.lock:"),
    ],
)
def test_a_lock_that_is_damaged_or_anothers_is_refused(
    python: Python, context: Path, edit: object, code: int, told: str
) -> None:
    python.aos("lock", context)
    file = context / "Agentfile.lock"
    file.write_text(edit(file.read_text()))  # type: ignore[operator]
    assert told in python.build(context, check=code).err
    for words in (("lock", "--check"), ("lock",)):
        assert told in python.aos(*words, context, check=code).err


def test_another_file_under_a_locked_version_is_refused(python: Python, context: Path) -> None:
    """A mirror that lies: the version is there, the bytes are not."""
    python.aos("lock", context)
    wheel = python.wheels / "one-1.0-py3-none-any.whl"
    shutil.copyfile(python.offer("one", "9.9"), wheel)
    shutil.rmtree(python.aos.root / "build")
    for pin in (python.aos.root / "content/pins").rglob("*"):
        if pin.is_file():
            pin.unlink()
    digest = next(
        line.split()[-1]
        for line in (context / "Agentfile.lock").read_text().splitlines()
        if "one-1.0" in line
    )
    (python.aos.root / "content/blobs" / digest.replace(":", "/")).unlink()
    failed = python.build(context, check=3)
    assert "no index has it with this hash" in failed.err
    assert digest in failed.err


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["nothing-of-that-name"], "nothing-of-that-name was not found"),
        (["one==7"], "no version of one==7"),
        (["one", "two==0.5"], "two"),
        (["one ==== 1"], "one ==== 1"),
    ],
)
def test_what_cannot_be_installed_is_explained_by_uv(
    python: Python, context: Path, asked: list[str], told: str
) -> None:
    _agentfile(context, steps=[{"install": {"pip": asked}}])
    for words in (("build",), ("lock",)):
        failed = python.aos(*words, context, check=10)
        explained = failed.err[failed.err.rindex("aos ") :]
        assert told in explained
        assert "Using Python" not in explained
    assert not (context / "Agentfile.lock").exists()


def _project(context: Path, *needs: str) -> None:
    project = context / "agent"
    project.mkdir(exist_ok=True)
    (project / "pyproject.toml").write_text(
        '[project]\nname = "agent"\nversion = "1"\nrequires-python = ">=3.9"\n'
        f"dependencies = {json.dumps(needs)}\n"
        '[dependency-groups]\ndev = ["sniffio"]\n'
    )


@pytest.mark.network
def test_a_project_is_installed_as_its_own_lock_says(python: Python, context: Path) -> None:
    """Without the project and its development groups; and locked like anything else."""
    python.aos.environ.clear()  # type: ignore[attr-defined]
    _project(context, "idna")
    subprocess.run([str(find_uv()), "lock", "-q", "--project", str(context / "agent")], check=True)
    _agentfile(
        context,
        steps=[
            {"install": {"pip": {"project": "agent"}}},
            {
                "run": "python3 -c 'import idna' && ! python3 -c 'import sniffio' && ! python3 -c 'import agent'"
            },
        ],
    )
    python.build(context)
    python.aos("lock", context)
    assert [pin.partition(" ")[0] for pin in _pins(context)] == ["idna"]
    python.offline("build", "-q", "--no-cache", context)

    _project(context, "idna", "certifi")
    assert "agent/pyproject.toml sha256:" in python.build(context, check=5).err
    assert "uv lock" in python.build(context, "--no-lock", check=10).err


@pytest.mark.network
@pytest.mark.timeout(900)  # two Debian bases, on a machine that may be busy
def test_debian_packages_are_locked_kept_and_installed_without_a_network(
    debian_root: Path, tmp_path: Path
) -> None:
    """The base made by the plugin, and apt's packages on it: the same bytes from what is kept as from the mirrors."""
    made = new_installation()
    shutil.copytree(debian_root, made.root, symlinks=True)
    builder = Builder(made, tmp_path)
    plugin = {"plugin": {"name": "debian", "with": {"suite": "bookworm", "include": ["python3"]}}}
    steps = [plugin, {"install": {"apt": ["bc"]}}, {"run": "echo 6*7 | bc > /answer"}]
    context = builder.context({}, steps, base="scratch")
    try:
        builder.build(context, "-t", "without:1")
        made("lock", context, timeout=290)
        assert "bc" in [pin.partition(" ")[0] for pin in _pins(context)]
        shutil.rmtree(made.root / "build/mounts")
        offline = subprocess.run(
            ["unshare", "--net", *made.command("build", "-q", "--no-cache", "-t", "with:1", context)],
            env=made.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert offline.returncode == 0, offline.stderr
        diff_ids = [
            [layer["diff_id"] for layer in made("packages", "inspect", name, "-o", "json").json["layers"]]
            for name in ("without:1", "with:1")
        ]
        assert diff_ids[0] == diff_ids[1]
    finally:
        shutil.rmtree(made.root.parent)


def test_what_pip_installs_has_byte_code_that_is_the_same_every_time(python: Python, context: Path) -> None:
    """It is believed by the hash of the source: a step that patches a module is not overruled."""
    patch = "f=$(python3 -c 'import one; print(one.__file__)') && sed -i s/1.0/patched/ $f"
    _agentfile(context, steps=[{"install": {"pip": ["one"]}}])
    python.build(context, "--no-cache", "-t", "first:1")
    python.build(context, "--no-cache", "-t", "second:1")
    diff_ids = [
        [layer["diff_id"] for layer in python.aos("packages", "inspect", name, "-o", "json").json["layers"]]
        for name in ("first:1", "second:1")
    ]
    assert diff_ids[0] == diff_ids[1]
    compiled = [path.name for path in python.unpack(context).rglob("__pycache__/*")]
    assert sorted(name.partition(".")[0] for name in compiled) == ["one", "two"]
    _agentfile(context, steps=[{"install": {"pip": ["one"]}}, {"run": patch}, SHOW])
    assert (python.unpack(context) / "one").read_text() == "patched\n"
