"""The same context gives the same digest: in another directory, store, order, umask, locale, zone and time."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from circumstances import HERE, THERE, Circumstance
from fix_build import Builder
from fix_installation import REPOSITORY, Installation, new_installation
from fix_python import write_wheel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


def _build(installation: Installation, context: Path, where: Circumstance, **environ: str) -> str:
    return where.build(installation, context, "--no-cache", environ=environ)


def test_one_context_one_digest(builder: Builder, busybox_root: Path, tmp_path: Path) -> None:
    context = builder.context(
        {
            "app/main.sh": "#!/bin/sh\necho hi\n",
            "app/data.txt": "x" * 100_000,
            "app/link": "-> main.sh",
            "ünïcode/ß": "ß",
            ".dockerignore": "*.log\n",
            "noise.log": "x",
        },
        [
            {"copy": {"src": ".", "dest": "/src/"}},
            {
                "run": "mkdir -p /made/deep && date > /dev/null && sh /src/app/main.sh > /made/out && rm /bin/yes"
            },
            {"run": "chown 7:7 /made && touch /made/now && ln /made/out /made/hard"},
            {"copy": {"from": "other", "src": "/o", "dest": "/other/"}},
        ],
        config={"workDir": "/made/by/the/runtime"},
        stages=[{"name": "other", "from": "busybox:1", "steps": [{"run": "mkdir /o && umask > /o/umask"}]}],
    )
    (context / "app/main.sh").chmod(0o755)
    digests = set()
    for number, where in enumerate((HERE, THERE)):
        installation = new_installation()
        shutil.copytree(busybox_root, installation.root, symlinks=True)
        try:
            digests.add(_build(installation, where.checkout(context, tmp_path / f"checkout{number}"), where))
        finally:
            shutil.rmtree(installation.root.parent)
    assert len(digests) == 1


def test_the_date_of_everything_is_source_date_epoch(builder: Builder) -> None:
    context = builder.context({"f": "x"}, [{"copy": {"src": "f", "dest": "/f"}}, {"run": "touch /made"}])
    builder.aos.environ["SOURCE_DATE_EPOCH"] = "1234567890"  # type: ignore[index]
    root = builder.unpack(context)
    assert ((root / "f").stat().st_mtime, (root / "made").stat().st_mtime) == (1234567890, 1234567890)
    builder.aos.environ["SOURCE_DATE_EPOCH"] = "yesterday"  # type: ignore[index]
    assert "SOURCE_DATE_EPOCH" in builder.build(context, check=2).err
    assert "reproducible" in builder.build(context, "--source-date-epoch", "7", "--check-reproducible").err


@pytest.mark.network
def test_installing_gives_one_digest_and_keeps_nothing_of_the_host(debian_root: Path, tmp_path: Path) -> None:
    """pip without a network, from wheels of the host; apt with one."""
    write_wheel(tmp_path / "wheels", "aosprobe", "1.0", command=True)
    digests = set()
    for number, where in enumerate((HERE, THERE)):
        installation = new_installation()
        shutil.copytree(debian_root, installation.root, symlinks=True)
        context = Builder(installation, tmp_path).context(
            {"requirements.txt": "-r more.txt\n", "more.txt": "aosprobe==1.0\n"},
            [
                {"install": {"pip": {"requirements": "requirements.txt"}, "network": False}},
                {"install": {"apt": ["bc"]}},
                {"run": "aosprobe > /probe && test ! -e /.aos-build && echo 6*7 | bc > /answer"},
            ],
            base="hello:1.0.0",
            name=f"context{number}",
        )
        environ = {"PIP_FIND_LINKS": str(tmp_path / "wheels"), "UV_NO_CONFIG": "1"}
        try:
            digests.add(_build(installation, context, where, **environ))
            layout = tmp_path / f"layout{number}"
            installation("build", "-o", layout, context)
        finally:
            shutil.rmtree(installation.root.parent)
        names = _names(layout)
        assert {"usr/bin/bc", "answer", "probe", "usr/local/bin/aosprobe"} <= set(names)
        kept = (
            "var/log/dpkg.log",
            "var/lib/apt/lists/",
            "apt/archives/",
            ".aos-build",
            "usr/sbin/policy-rc.d",
        )
        assert not [name for name in names if any(word in name for word in kept)]
        assert not [path for path in layout.rglob("*") if path.is_file() and b"/wheels" in path.read_bytes()]
    assert len(digests) == 1


@pytest.mark.network
def test_hello_is_the_same_from_nothing_twice(debian_root: Path, tmp_path: Path) -> None:
    """The Debian base included, in another store and time, with other circumstances."""
    first = Installation(
        type(new_installation().config)(root=debian_root, state=debian_root.parent / "state")
    )
    digest = first("packages", "inspect", "hello:1.0.0", "-o", "json").json
    other = new_installation()
    try:
        context = THERE.checkout(REPOSITORY / "examples/hello", tmp_path / "hello")
        assert _build(other, context, THERE) in str(digest)
    finally:
        shutil.rmtree(other.root.parent)


def _names(layout: Path) -> list[str]:
    """Every path in every layer of a layout, and every word of its documents."""
    import json
    import tarfile

    found: list[str] = []
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    document = json.loads((layout / "blobs" / manifest.replace(":", "/")).read_text())
    for layer in document["layers"]:
        with tarfile.open(layout / "blobs" / layer["digest"].replace(":", "/")) as archive:
            found += archive.getnames()
    return found
