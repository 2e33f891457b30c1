"""The plugin `git`, against real repositories: over git's daemon on loopback, over files, and hostile ones."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.build.plugins import git_remote
from aos.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_build import Builder

pytestmark = pytest.mark.root

if shutil.which("git") is None:
    pytest.skip("git is not installed", allow_module_level=True)


@dataclass
class Repositories:
    """Bare repositories below one directory, which a git daemon serves."""

    directory: Path
    port: int
    environ: dict[str, str] = field(default_factory=dict)

    def git(self, *words: str | Path, at: Path | None = None, data: str | bytes = "") -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=at or self.directory,
            input=data.encode() if isinstance(data, str) else data,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **self.environ},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace").strip()

    def make(self, name: str, files: dict[str, str | bytes]) -> Path:
        """A repository with one commit on `main`; its bare form is what is served. The work tree is returned."""
        work = self.directory / f"{name}.work"
        self.git("init", "-q", "-b", "main", work)
        self.git("config", "user.email", "it@test", at=work)
        self.git("config", "user.name", "it", at=work)
        self.commit(work, files)
        self.git("clone", "-q", "--bare", work, f"{name}.git")
        self.git("remote", "add", "origin", self.directory / f"{name}.git", at=work)
        return work

    def commit(self, work: Path, files: dict[str, str | bytes]) -> str:
        for path, content in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str) and content.startswith("-> "):
                (work / path).symlink_to(content[3:])
            else:
                (work / path).write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("-c", "protocol.file.allow=always", "add", "-A", at=work)
        self.git("commit", "-q", "-m", "x", at=work)
        return self.git("rev-parse", "HEAD", at=work)

    def push(self, work: Path) -> None:
        self.git("push", "-q", "origin", "--all", at=work)
        self.git("push", "-q", "origin", "--tags", at=work)

    def url(self, name: str) -> str:
        return f"git://127.0.0.1:{self.port}/{name}.git"


@pytest.fixture
def repositories(tmp_path: Path) -> Iterator[Repositories]:
    directory = tmp_path / "repositories"
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        [
            *("git", "daemon", "--export-all", f"--base-path={directory}", "--listen=127.0.0.1"),
            *(f"--port={port}", "--reuseaddr", "--verbose"),
        ],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert daemon.stderr is not None
    while b"Ready to rumble" not in daemon.stderr.readline():
        pass
    yield Repositories(directory, port)
    os.killpg(daemon.pid, 9)
    daemon.communicate()


def _step(address: str, **more: object) -> dict[str, object]:
    return {"plugin": {"name": "git", "with": {"url": address, "dest": "/src"} | more}}


def test_the_exact_tree_of_a_branch_and_again_when_it_moves(
    builder: Builder, repositories: Repositories
) -> None:
    work = repositories.make(
        "it",
        {
            "run.sh": "#!/bin/sh\n",
            "a/crlf.txt": "one\r\ntwo\n",
            "a/ident": "$Id$ $Format:%H$\n",
            "link": "-> a/ident",
            "secret": "s",
            ".gitattributes": "* text=auto eol=crlf ident filter=evil\nsecret export-ignore\na/ident export-subst\n",
        },
    )
    (work / "run.sh").chmod(0o755)
    repositories.commit(work, {})
    repositories.push(work)
    context = builder.context({}, [_step(repositories.url("it"), ref="main")])
    root = builder.unpack(context)
    src = root / "src"
    assert sorted(path.name for path in src.iterdir()) == [".gitattributes", "a", "link", "run.sh", "secret"]
    assert (src / "a/crlf.txt").read_bytes() == b"one\ntwo\n"  # as it was committed
    assert (src / "a/ident").read_bytes() == b"$Id$ $Format:%H$\n"
    assert (src / "link").readlink() == Path("a/ident")
    assert [path.lstat().st_mode & 0o777 for path in (src / "run.sh", src / "secret", src / "a")] == [
        0o755,
        0o644,
        0o755,
    ]
    assert {path.lstat().st_mtime for path in src.rglob("*")} == {0}
    assert re.search(r"#2 .*: cached", builder.build(context).err)
    repositories.commit(work, {"new": "x"})
    repositories.push(work)
    moved = builder.unpack(context)
    assert (moved / "src/new").read_text() == "x"


def test_tags_commits_and_an_address_that_is_gone(builder: Builder, repositories: Repositories) -> None:
    work = repositories.make("it", {"f": "one", "sub/dir/g": "deep"})
    first = repositories.git("rev-parse", "HEAD", at=work)
    repositories.git("tag", "-a", "v1", "-m", "one", at=work)
    repositories.commit(work, {"f": "two"})
    repositories.push(work)
    root = builder.unpack(
        builder.context({}, [_step(repositories.url("it"), ref="v1", subdir="sub/dir")], name="tag")
    )
    assert [path.name for path in (root / "src").iterdir()] == ["g"]
    pinned = builder.context(
        {}, [_step(repositories.url("it"), ref=first, dest="/etc/it/one")], name="pinned"
    )
    root = builder.unpack(pinned)
    assert (root / "etc/it/one/f").read_text() == "one"
    assert (root / "etc/passwd").exists() == (builder.contexts / "tag.bundle/rootfs/etc/passwd").exists()
    shutil.rmtree(repositories.directory / "it.git")
    assert ": cached" in builder.build(pinned).err  # a commit's hash asks nobody
    gone = builder.build(
        builder.context({}, [_step(repositories.url("it"), ref="v1")], name="gone"), check=11
    )
    assert "cannot be asked" in gone.err
    assert "full hash asks nobody" in gone.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"ref": "nothing"}, 3, "has no branch or tag 'nothing'"),
        ({"ref": "0" * 40}, 3, "has no commit 0000"),
        ({"subdir": "f"}, 2, "has no directory 'f'"),
        ({"subdir": "../x"}, 2, "'subdir' must be"),
        ({"dest": "relative"}, 2, "'dest' must be"),
        ({"dest": "/bin/busybox"}, 2, "is no directory in the image"),
        ({"dest": "/"}, 2, "is a directory in the image, and a file in the repository"),
        ({"url": "https://me:word@host/x"}, 2, "must not hold a password"),
        ({"url": "--upload-pack=touch /tmp/x"}, 2, "'url' must be"),
        ({"url": "ext::sh -c 'touch /tmp/aos-git-ext'"}, 2, "'url' must be"),
        ({"url": "ext::touch%20/x"}, 5, "not allowed"),
        ({"url": "file:///etc"}, 5, "not allowed"),
        ({"url": "/etc"}, 5, "not allowed"),
        ({"ref": "--all"}, 2, "'ref' must be"),
        ({"depth": 3}, 2, "'depth' is of the history"),
        ({"branch": "x"}, 2, "unknown option 'branch'"),
    ],
)
def test_what_cannot_be_fetched(
    builder: Builder, repositories: Repositories, options: dict[str, object], code: int, words: str
) -> None:
    repositories.make("it", {"f": "x", "bin": "a file"})
    step = _step(repositories.url("it"), **options)
    result = builder.build(builder.context({}, [step]), check=code)
    assert words in result.err
    assert "hint:" in result.err
    assert "Traceback" not in result.err


def test_submodules_relative_ones_too(builder: Builder, repositories: Repositories) -> None:
    repositories.make("inner", {"inner.txt": "inner"})
    middle = repositories.make("middle", {"m": "m"})
    allow = ("-c", "protocol.file.allow=always")
    repositories.git(
        *allow, "submodule", "--quiet", "add", repositories.directory / "inner.git", "deep", at=middle
    )
    _address(repositories, middle, "deep", "../inner.git")
    repositories.push(middle)
    outer = repositories.make("outer", {"o": "o"})
    repositories.git(
        *allow, "submodule", "--quiet", "add", repositories.directory / "middle.git", "lib/m", at=outer
    )
    _address(repositories, outer, "lib/m", repositories.url("middle"))
    repositories.push(outer)
    root = builder.unpack(builder.context({}, [_step(repositories.url("outer"), submodules=True)]))
    assert (root / "src/lib/m/deep/inner.txt").read_text() == "inner"
    root = builder.unpack(builder.context({}, [_step(repositories.url("outer"))], name="without"))
    assert list((root / "src/lib/m").iterdir()) == []


def _address(repositories: Repositories, work: Path, path: str, url: str) -> None:
    repositories.git("config", "-f", ".gitmodules", f"submodule.{path}.url", url, at=work)
    repositories.commit(work, {})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ext::sh -c true", "has an address that is none"),
        ("ext::true", "refuses its transport"),
        ("file:///etc", "refuses its transport"),
        ("--upload-pack=true", "has an address that is none"),
        ("../../../../x", "leads out of"),
    ],
)
def test_a_hostile_submodule_s_address(
    builder: Builder, repositories: Repositories, url: str, words: str
) -> None:
    repositories.make("inner", {"inner.txt": "inner"})
    outer = repositories.make("outer", {"o": "o"})
    allow = ("-c", "protocol.file.allow=always")
    repositories.git(
        *allow, "submodule", "--quiet", "add", repositories.directory / "inner.git", "m", at=outer
    )
    _address(repositories, outer, "m", url)
    repositories.push(outer)
    context = builder.context({}, [_step(repositories.url("outer"), submodules=True)])
    result = builder.build(context, check=False)
    assert result.code in (2, 5)
    assert words in result.err


def test_a_tree_that_means_to_lead_out_of_its_place(builder: Builder, repositories: Repositories) -> None:
    """A link and, as git's tools would never write it, a directory of the same name; and a name that is `..`."""
    victim = builder.contexts / "victim"
    victim.mkdir()
    work = repositories.make("it", {"f": "x"})
    blob = repositories.git("hash-object", "-w", "--stdin", at=work, data="escaped")
    link = repositories.git("hash-object", "-w", "--stdin", at=work, data=str(victim))
    inner = repositories.git("mktree", at=work, data=f"100644 blob {blob}\tfile\n")
    raw = b"".join(
        mode + b" " + name + b"\0" + bytes.fromhex(hash)
        for mode, name, hash in ((b"120000", b"a", link), (b"40000", b"a", inner))
    )
    twice = repositories.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", at=work, data=raw)
    climbing = b"40000 ..\0" + bytes.fromhex(inner)
    up = repositories.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", at=work, data=climbing)
    for name, tree in (("twice", twice), ("up", up)):
        commit = repositories.git("commit-tree", tree, "-m", "x", at=work)
        repositories.git("update-ref", f"refs/heads/{name}", commit, at=work)
    repositories.push(work)
    for name in ("twice", "up"):
        context = builder.context({}, [_step(repositories.url("it"), ref=name)], name=name)
        result = builder.build(context, check=False)
        assert result.code == 10 or name == "twice"
        assert list(victim.iterdir()) == []
    assert not (builder.contexts / "file").exists()


def test_history_is_kept_when_asked_and_is_the_same_twice(
    builder: Builder, repositories: Repositories
) -> None:
    work = repositories.make("it", {"f": "one"})
    for number in range(4):
        repositories.commit(work, {"f": f"{number}"})
    repositories.push(work)
    context = builder.context({}, [_step(repositories.url("it"), git=True, depth=3)])
    first = builder.build(context).out
    assert builder.build(context, "--no-cache").out == first
    src = builder.unpack(context) / "src"
    git = ("git", "-c", "safe.directory=*", "-C", src)
    log = subprocess.run(
        [*git, "log", "--format=%H"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(log) == 3
    assert log[0] == repositories.git("rev-parse", "HEAD", at=work)
    subprocess.run([*git, "fsck", "--strict"], check=True, capture_output=True)
    subprocess.run([*git, "reset", "-q"], check=True)
    assert subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout == b""


def test_the_host_s_own_configuration_leads_to_the_repository_and_is_kept_nowhere(
    builder: Builder, repositories: Repositories
) -> None:
    repositories.make("it", {"f": "x"})
    configuration = builder.contexts / "gitconfig"
    configuration.write_text(
        f'[url "{repositories.directory}/"]\n\tinsteadOf = https://example.test/\n'
        '[protocol "file"]\n\tallow = always\n[core]\n\tautocrlf = true\n[safe]\n\tdirectory = *\n'
    )
    builder.aos.environ["GIT_CONFIG_GLOBAL"] = str(configuration)  # type: ignore[index]
    root = builder.unpack(builder.context({}, [_step("https://example.test/it.git")]))
    assert (root / "src/f").read_text() == "x"
    assert [path.name for path in (root / "src").iterdir()] == ["f"]


def test_a_remote_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_remote, "_REMOTE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/it.git"
        with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
            git_remote.resolve_ref(url, "main", {"PATH": os.environ["PATH"]})


def test_a_lock_holds_the_commit_until_it_is_told_otherwise(
    builder: Builder, repositories: Repositories
) -> None:
    """With a lock the remote is not even asked what the branch means."""
    work = repositories.make("it", {"f": "1"})
    first = repositories.git("rev-parse", "HEAD", at=work)
    context = builder.context({}, [_step(repositories.url("it"), ref="main")], base="scratch")
    assert f"plugin git: commit {first}" in builder.aos("lock", context).out
    built = builder.build(context).out
    second = repositories.commit(work, {"f": "2"})
    repositories.push(work)
    assert builder.build(context).out == built
    assert "is up to date" in builder.aos("lock", context).out
    assert "fits" in builder.aos("lock", "--check", context).out
    shutil.move(repositories.directory / "it.git", repositories.directory / "away.git")
    assert builder.build(context).out == built
    shutil.move(repositories.directory / "away.git", repositories.directory / "it.git")
    assert f"{first} -> {second}" in builder.aos("lock", "--upgrade", "git", context).out
    assert (builder.unpack(context) / "src/f").read_text() == "2"
