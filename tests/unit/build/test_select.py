"""What a copy takes, and what its digest covers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from aos.build.digests import FileDigests
from aos.build.ignore import parse_ignore
from aos.build.select import Source, digest_of_sources, open_context, select
from aos.content.tree import ContextTree
from aos.errors import AosError, InvalidArgument, NotFound


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("app/main.py", "app/lib/a.py", "app/lib/b.txt", "README.md", "setup.py", ".env"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def _select(context: Path, *patterns: str, rules: str = "") -> tuple[Source, ...]:
    return select(ContextTree(context), patterns, rules=parse_ignore(rules.encode()), digests=FileDigests())


def _paths(sources: tuple[Source, ...]) -> list[str]:
    return [entry.path for source in sources for entry in source.entries]


def test_a_file_a_directory_and_everything(context: Path) -> None:
    assert _paths(_select(context, "README.md")) == ["README.md"]
    assert _paths(_select(context, "app")) == [
        "app",
        "app/lib",
        "app/lib/a.py",
        "app/lib/b.txt",
        "app/main.py",
    ]
    assert _paths(_select(context, "app/")) == _paths(_select(context, "./app"))
    assert _paths(_select(context, "."))[1:3] == [".env", "README.md"]


def test_globs(context: Path) -> None:
    assert _paths(_select(context, "*.py")) == ["setup.py"]
    assert _paths(_select(context, "app/*/*.py")) == ["app/lib/a.py"]
    assert sorted(_paths(_select(context, "**/*.py"))) == ["app/lib/a.py", "app/main.py", "setup.py"]
    with pytest.raises(InvalidArgument) as caught:
        _select(context, "[")
    assert caught.value.code == "pattern-invalid"


def test_ignored_files_are_not_there(context: Path) -> None:
    assert _paths(_select(context, "app", rules="**/*.txt\napp/lib/a.py")) == [
        "app",
        "app/lib",
        "app/main.py",
    ]
    assert _paths(_select(context, "app", rules="app\n!app/main.py")) == ["app", "app/main.py"]
    with pytest.raises(NotFound) as caught:
        _select(context, "README.md", rules="*.md")
    assert caught.value.code == "copy-source-missing"
    assert "ignore" in (caught.value.hint or "")


def test_a_missing_file_is_named(context: Path) -> None:
    with pytest.raises(NotFound) as caught:
        _select(context, "README.md", "nope.txt")
    assert "nope.txt" in caught.value.message


@pytest.mark.parametrize("pattern", ["../x", "app/../../x", "out/x", "out/*"])
def test_a_path_that_leaves_the_context_is_refused(context: Path, pattern: str) -> None:
    (context.parent / "x").write_text("secret")
    (context / "out").symlink_to("..")
    with pytest.raises(InvalidArgument) as caught:
        _select(context, pattern)
    assert caught.value.code == "path-escapes"


def test_a_link_is_taken_as_a_link(context: Path) -> None:
    (context.parent / "secret").write_text("secret")
    (context / "link").symlink_to("../secret")
    (source,) = _select(context, "link")
    assert (source.entries[0].kind, source.entries[0].content) == ("link", "../secret")


def test_a_directory_link_inside_the_context_is_followed_on_the_way(context: Path) -> None:
    (context / "current").symlink_to("app")
    assert _paths(_select(context, "current/main.py")) == ["app/main.py"]


def test_special_files_are_refused_and_named(context: Path) -> None:
    os.mkfifo(context / "app/pipe")
    with pytest.raises(InvalidArgument, match="'app/pipe' is a FIFO") as caught:
        _select(context, "app")
    assert caught.value.code == "special-file"
    (context / "app/pipe").unlink()
    here = Path.cwd()
    os.chdir(context / "app")
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("sock")
    finally:
        os.chdir(here)
    with pytest.raises(InvalidArgument, match="a socket"):
        _select(context, "app")
    assert _paths(_select(context, "app", rules="app/sock"))


def test_the_digest_covers_content_names_links_and_executable_bits(context: Path) -> None:
    def digest() -> str:
        return digest_of_sources(_select(context, "app"))

    first = digest()
    os.utime(context / "app/main.py", (1, 1))
    (context / "app/main.py").chmod(0o600)
    (context / "app").chmod(0o700)
    assert digest() == first, "times, and bits that a umask decides, say nothing"
    seen = {first}
    (context / "app/main.py").chmod(0o755)
    seen.add(digest())
    (context / "app/main.py").write_text("other")
    seen.add(digest())
    (context / "app/main.py").rename(context / "app/renamed.py")
    seen.add(digest())
    (context / "app/link").symlink_to("a")
    seen.add(digest())
    (context / "app/link").unlink()
    (context / "app/link").symlink_to("b")
    seen.add(digest())
    (context / "app/empty").mkdir()
    seen.add(digest())
    assert len(seen) == 7


def test_names_that_are_not_text_are_taken(context: Path) -> None:
    name = os.fsdecode(b"app/\xff\nnew")
    (context / name).write_text("x")
    assert name in _paths(_select(context, "app"))
    assert digest_of_sources(_select(context, "app"))


@pytest.mark.parametrize("what", ["missing", "a file"])
def test_a_context_that_is_none(tmp_path: Path, what: str) -> None:
    (tmp_path / "a file").write_text("x")
    with pytest.raises(AosError) as caught:
        open_context(tmp_path / what)
    assert caught.value.code in ("context-not-found", "context-invalid")


def test_aosignore_wins_over_dockerignore(context: Path) -> None:
    assert not open_context(context).rules
    (context / ".dockerignore").write_text("*.md")
    assert open_context(context).rules.ignores("README.md")
    (context / ".aosignore").write_text("*.py")
    opened = open_context(context)
    assert opened.ignore_file == ".aosignore"
    assert not opened.rules.ignores("README.md")


def test_a_tree_without_a_bottom_is_refused(context: Path) -> None:
    (context / ("d/" * 300)).mkdir(parents=True)
    with pytest.raises(InvalidArgument) as caught:
        _select(context, ".")
    assert caught.value.code == "tree-too-deep"
    assert _select(context, ".", rules="d")
