"""The command itself: found through links and from anywhere, for every way of installing it, and quick to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
LAUNCHER = SOURCE / "aos/cli/launcher.sh"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def aos(*command: str | Path, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environ},
        check=False,
    )


@pytest.fixture(params=["site-packages", "dist-packages", "lib64", "editable", "editable with a newline"])
def prefix(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An installation: bin/aos, an interpreter beside it, and the package where that kind of installation has it."""
    made = tmp_path / "a prefix"
    lib = "lib64" if request.param == "lib64" else "lib"
    site = made / lib / PYTHON / (request.param if request.param.endswith("packages") else "site-packages")
    site.mkdir(parents=True)
    (made / "bin").mkdir()
    shutil.copy(LAUNCHER, made / "bin/aos")
    (made / "bin" / PYTHON).symlink_to(sys.executable)
    if request.param.startswith("editable"):
        pth = str(SOURCE) + "\n" * request.param.endswith("newline")
        (site / "_editable_impl_openos_aos.pth").write_text(pth)
    else:
        (site / "aos").symlink_to(SOURCE / "aos")
    return made


def test_from_anywhere(prefix: Path, tmp_path: Path) -> None:
    link, chain = tmp_path / "link", tmp_path / "chain"
    link.symlink_to(prefix / "bin/aos")
    chain.symlink_to("link")
    expected = aos(prefix / "bin/aos", "version", "--client").stdout
    assert expected.startswith("aos ")
    for command, cwd, path in (
        (str(link), None, ""),
        ("./link", tmp_path, ""),
        (str(chain), None, ""),
        ("./aos", prefix / "bin", ""),
        ("bin/aos", prefix, ""),
        ("aos", tmp_path, f"{prefix}/bin:"),
        ("link", prefix, f"{tmp_path}:"),
    ):
        # A name without a slash is looked up by the shell that reads it.
        done = aos("sh", "-c", f"{command!r} version --client", cwd=cwd, PATH=path + os.environ["PATH"])
        assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0), command


def test_arguments_arrive_as_they_are(prefix: Path) -> None:
    done = aos(prefix / "bin/aos", "a b\n'\"$x*")
    assert done.stderr.startswith("aos: unknown verb " + repr("a b\n'\"$x*"))
    assert done.returncode == 2


def test_the_environments_python_settings_do_not_matter(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "posix.py").write_text("raise SystemExit('wrong posix')")
    (tmp_path / "aos").mkdir()
    done = aos(
        prefix / "bin/aos",
        "--version",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
        PYTHONHOME="/nowhere",
        PYTHONSTARTUP="x",
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["packages", "--help"], ["packages", "ls", "-h"]]
)
def test_help_reaches_a_pipe(words: list[str], prefix: Path) -> None:
    assert aos(prefix / "bin/aos", *words).stdout.startswith("Usage: aos ")


def test_an_installation_without_the_package(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(LAUNCHER, tmp_path / "bin/aos")
    done = aos(tmp_path / "bin/aos")
    assert done.returncode == 1
    assert "has no aos package\nhint: install openos-aos again" in done.stderr


def test_an_interpreter_that_is_gone(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3.99/site-packages/aos/cli"
    site.mkdir(parents=True)
    (site / "main.py").touch()
    (tmp_path / "bin").mkdir()
    shutil.copy(LAUNCHER, tmp_path / "bin/aos")
    done = aos(tmp_path / "bin/aos")
    assert done.returncode == 1
    assert done.stderr.startswith("aos: python3.99, which aos was installed for, is gone\nhint: ")


def test_closed_standard_streams_are_not_mistaken_for_ours(prefix: Path) -> None:
    command = prefix / "bin/aos"
    done = aos("sh", "-c", f"'{command}' --version <&- >&- 2>&-")
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode == 0


def test_a_full_disk_and_a_reader_that_left(prefix: Path) -> None:
    command = prefix / "bin/aos"
    done = aos("sh", "-c", f"'{command}' --help >/dev/full")
    assert (done.returncode, done.stderr.splitlines()[0]) == (8, "aos help: No space left on device")
    done = aos("bash", "-c", f"'{command}' completion bash | true; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.stdout in ("141\n", "0\n")


# Modules that cost milliseconds; what a verb may import besides is builtins and C modules.
SLOW = {
    "argparse", "asyncio", "collections", "contextlib", "dataclasses", "enum", "functools", "inspect", "json",
    "logging", "os", "pathlib", "re", "shutil", "signal", "site", "socket", "stat", "subprocess", "tempfile",
    "threading", "tomllib", "types", "typing",
}  # fmt: skip


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["ps"], ["run", "x:1", "true"], ["exec", "x", "true"]]
)
def test_the_quick_path_imports_only_c_modules(words: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import aos.client.start as start;"
        f"start.start_daemon = lambda: None; from aos.cli.main import main; main({words!r})"
    )
    done = aos(
        sys.executable,
        "-IS",
        "-X",
        "importtime",
        "-c",
        code,
        AOS_ROOT=str(tmp_path / "r"),
        AOS_STATE=str(tmp_path / "s"),
    )
    imported = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "aos.cli.main" in imported
    assert imported & SLOW == set()


def test_byte_code_is_cached(prefix: Path) -> None:
    aos(prefix / "bin/aos", "--help")
    cache = SOURCE / "aos/cli/__pycache__"
    assert list(cache.glob(f"main.cpython-{sys.version_info.major}{sys.version_info.minor}.pyc"))
