"""What a copy takes, and what its digest covers."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from aos.build.context.digests import FileDigests
from aos.build.context.files import ContextTree, open_context
from aos.build.context.ignore import parse_ignore
from aos.build.context.select import Source, digest_of_sources, select
from aos.errors import AosError, Conflict, InvalidArgument, NotFound, PermissionDenied


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


def test_a_device_is_refused(context: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a device needs root")
    os.mknod(context / "app/null", 0o20666, os.makedev(1, 3))
    with pytest.raises(InvalidArgument, match="'app/null' is a character device"):
        _select(context, "app")


@pytest.mark.parametrize("pattern", ["/", "/app/..", "."])
def test_the_root_by_any_name(context: Path, pattern: str) -> None:
    assert _paths(_select(context, pattern)) == _paths(_select(context, "./"))


def test_an_absolute_path_is_one_of_the_context(context: Path) -> None:
    assert _paths(_select(context, "/app/main.py")) == ["app/main.py"]
    with pytest.raises(NotFound):
        _select(context, "/etc/passwd")


@pytest.mark.parametrize("pattern", ["..", "../", "../context/README.md", "app/../..", "*/../../x", "/.."])
def test_dots_never_lead_out(context: Path, pattern: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _select(context, pattern)
    assert caught.value.code == "path-escapes"


def test_dots_inside_are_fine(context: Path) -> None:
    assert _paths(_select(context, "app/lib/../main.py")) == ["app/main.py"]


def test_links_that_form_a_circle(context: Path) -> None:
    (context / "loop").symlink_to("loop")
    (context / "up").symlink_to(".")
    with pytest.raises(InvalidArgument) as caught:
        _select(context, "loop/x")
    assert caught.value.code == "too-many-links"
    assert [entry.kind for source in _select(context, "loop", "up") for entry in source.entries] == [
        "link",
        "link",
    ]
    assert "up" in _paths(_select(context, "."))


@pytest.mark.parametrize("pattern", ["nope", "*.rs", "app/nope/*", "README.md/x", "README.md/*"])
def test_what_matches_nothing_is_said(context: Path, pattern: str) -> None:
    with pytest.raises(NotFound) as caught:
        _select(context, pattern)
    assert caught.value.code == "copy-source-missing"
    assert "context" in (caught.value.hint or "")


def test_two_hundred_levels_are_taken(context: Path) -> None:
    (context / "deep" / "/".join("d" * 199)).mkdir(parents=True)
    (context / "deep" / "/".join("d" * 199) / "f").write_text("x")
    assert _paths(_select(context, "deep"))[-1].count("/") == 200
    (context / "deep" / "/".join("d" * 201)).mkdir(parents=True)
    with pytest.raises(InvalidArgument) as caught:
        _select(context, "deep")
    assert caught.value.code == "tree-too-deep"


def test_a_path_that_is_too_long_is_refused(context: Path) -> None:
    here = Path.cwd()
    try:
        os.chdir(context / "app")
        for _ in range(20):  # longer than any one system call takes
            Path("n" * 250).mkdir()
            os.chdir("n" * 250)
    finally:
        os.chdir(here)
    with pytest.raises(InvalidArgument) as caught:
        _select(context, ".")
    assert caught.value.code == "tree-too-deep"
    assert len(caught.value.message) < 300


def test_a_context_within_a_context_has_no_rules_of_its_own(context: Path) -> None:
    (context / "app/.aosignore").write_text("*")
    (context / "app/Agentfile").write_text("x")
    assert _paths(_select(context, "app"))[:3] == ["app", "app/.aosignore", "app/Agentfile"]
    assert open_context(context / "app").ignore_file == ".aosignore"
    assert open_context(context).ignore_file == ""


def test_a_link_for_an_ignore_file_does_not_lead_out_of_the_context(context: Path) -> None:
    (context.parent / "others").write_text("*.py")
    (context / ".aosignore").symlink_to("../others")
    with pytest.raises(PermissionDenied, match="leads out of the context") as caught:
        open_context(context)
    assert caught.value.code == "file-unreadable"
    (context / ".aosignore").unlink()
    (context / "rules").write_text("*.py")
    (context / ".aosignore").symlink_to("rules")
    assert open_context(context).ignore_file == ".aosignore"


def test_an_ignore_file_that_cannot_be_read(context: Path) -> None:
    (context / ".aosignore").mkdir()
    with pytest.raises(AosError) as caught:
        open_context(context)
    assert caught.value.code == "file-unreadable"


def test_a_context_that_is_a_circle_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotFound):
        open_context(tmp_path / "loop")


def test_names_of_one_file_shape_the_digest(context: Path) -> None:
    (context / "app/one").write_text("same")
    (context / "app/two").write_text("same")
    apart = digest_of_sources(_select(context, "app"))
    (context / "app/two").unlink()
    (context / "app/two").hardlink_to(context / "app/one")
    together = digest_of_sources(_select(context, "app"))
    assert together != apart
    (context / "app/two").unlink()
    (context / "app/two").write_text("same")
    (context / "elsewhere").hardlink_to(context / "app/two")
    assert digest_of_sources(_select(context, "app")) == apart, "the other name is not copied"


def test_the_digest_is_the_same_elsewhere(context: Path, tmp_path: Path) -> None:
    """Another directory, files made in another order, other inodes."""
    shutil.copytree(context, tmp_path / "copied")
    shutil.rmtree(tmp_path / "copied/app")
    shutil.copytree(context / "app", tmp_path / "copied/app")
    assert digest_of_sources(_select(tmp_path / "copied", ".")) == digest_of_sources(_select(context, "."))


def test_a_file_outside_of_what_is_copied_says_nothing(context: Path) -> None:
    before = digest_of_sources(_select(context, "app", rules="app/lib"))
    (context / "other").write_text("x")
    (context / "app/lib/new").write_text("x")
    assert digest_of_sources(_select(context, "app", rules="app/lib")) == before


def test_a_directory_that_vanishes_is_said(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ContextTree(context)
    reader = tree.reader()
    real = type(reader).scan

    def scan(self: object, directory: str) -> object:
        found = real(self, directory)  # type: ignore[arg-type]
        if directory == "app":
            shutil.rmtree(context / "app/lib")
        return found

    monkeypatch.setattr(type(reader), "scan", scan)
    with pytest.raises(Conflict, match="'app/lib' changed while it was read"):
        _select(context, "app")


def test_a_directory_that_becomes_a_link_between_two_looks_leads_nowhere(
    context: Path, tmp_path: Path
) -> None:
    """Somebody swaps a directory with a link to a secret, as fast as they can."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.py").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    secret = hashlib.sha256(b"secret").hexdigest()
    stop = threading.Event()

    def swap() -> None:
        lib, away = context / "app/lib", tmp_path / "away"
        while not stop.is_set():
            lib.rename(away)
            (tmp_path / "link").rename(lib)
            lib.rename(tmp_path / "link")
            away.rename(lib)

    thread = threading.Thread(target=swap)
    thread.start()
    seen, refused = set(), 0
    try:
        for number in range(600):
            try:
                for source in _select(context, ("app", "app/lib/a.py", "app/lib")[number % 3]):
                    seen |= {entry.content for entry in source.entries}
            except AosError as error:
                assert error.code in ("context-changed", "path-escapes", "copy-source-missing")
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert secret not in seen
    assert hashlib.sha256(b"app/lib/a.py").hexdigest() in seen
    assert refused, "the race was never met"


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_an_ordinary_user_may_not_read_is_named(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "closed").mkdir() if what == "directory" else (root / "closed").write_text("x")
        (root / "closed").chmod(0)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionDenied, match="cannot read 'closed'") as caught:
                _select(root, ".")
            assert caught.value.code == "file-unreadable"
            assert _paths(_select(root, ".", rules="closed")) == [""]
        finally:
            os.seteuid(0)


def test_a_selection_of_ten_thousand_files_is_quick(tmp_path: Path) -> None:
    """0.05 s where this was written; the digests are known already."""
    for number in range(10_000):
        if number % 100 == 0:
            (tmp_path / f"d{number // 100}").mkdir()
        os.close(os.open(tmp_path / f"d{number // 100}/{number}", os.O_CREAT | os.O_WRONLY))
    tree, digests = ContextTree(tmp_path), FileDigests()
    select(tree, ["."], digests=digests)
    rules = parse_ignore(b"**/*.pyc\n**/node_modules\nbuild\n*.md\n!README.md")
    began = time.perf_counter()
    assert digest_of_sources(select(tree, ["."], rules=rules, digests=digests))
    assert time.perf_counter() - began < 1
