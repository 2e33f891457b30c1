"""The ignore rules, by the cases that the Dockerfile reference documents and that moby/patternmatcher's tests fix."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.build.context.glob import parse_glob
from aos.build.context.ignore import IgnoreRules, parse_ignore
from aos.errors import InvalidArgument


def _rules(*lines: str) -> IgnoreRules:
    return parse_ignore("\n".join(lines).encode("utf-8", "surrogateescape"))


ONE_PATTERN = [
    # a star and a question mark stop at '/'; what matches a directory matches all below it
    ("*", "file", True),
    ("*", "dir/file", True),
    ("*.txt", "a.txt", True),
    ("*.txt", "dir/a.txt", False),
    ("*.txt", "dir.txt/a", True),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "ab/c", True),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("*x", "xxx", True),
    ("*/temp*", "somedir/temporary.txt", True),
    ("*/temp*", "temp", False),
    ("*/*/temp*", "a/b/temporary.txt", True),
    ("*/*/temp*", "a/temporary.txt", False),
    ("temp?", "tempa", True),
    ("temp?", "temp", False),
    ("abc?def", "abcZdef", True),
    ("a?b", "a/b", False),
    ("a*b", "a/b", False),
    ("a/*.txt", "a/file.txt", True),
    ("a/*.txt", "a/dir/file.txt", False),
    (".*", ".foo", True),
    (".*", "foo", False),
    # two stars cross it
    ("**", "file", True),
    ("**", "dir/file", True),
    ("**/", "file", True),
    ("**/", "dir/file", True),
    ("**/**", "file", True),
    ("**/**", "dir/file", True),
    ("***", "dir/file", True),
    ("dir/**", "dir/file", True),
    ("dir/**", "dir/dir2/file", True),
    ("abc/**", "abc", False),
    ("abc/**", "abcd", False),
    ("abc/**/", "abc/d", True),
    ("abc/**/**", "abc/d", True),
    ("abc/**/**", "abc", False),
    ("**/dir", "dir", True),
    ("**/dir", "dir/file", True),
    ("**/dir", "a/dir", True),
    ("**/dir", "adir", False),
    ("**/dir2/*", "dir/dir2/file", True),
    ("**/dir2/*", "dir/dir2", False),
    ("**/dir2/**", "dir/dir2/dir3/file", True),
    ("**/file", "dir/dir/file", True),
    ("**/file*txt", "dir/dir/file.txt", True),
    ("**/file*.txt*", "dir/dir/file.txt", True),
    ("**/**/*.txt", "file.txt", True),
    ("**/**/*.txt", "dir/dir/file.txt", True),
    ("**/**/*.txt2", "dir/dir/file.txt", False),
    ("**/*.go", "main.go", True),
    ("**/*.go", "a/b/c.go", True),
    ("**/foo/bar", "foo/bar", True),
    ("**/foo/bar", "dir/dir2/foo/bar", True),
    ("**/foo/bar", "foo/dir/bar", False),
    ("**/.foo", ".foo", True),
    ("**/.foo", "bar.foo", False),
    ("a/**/c", "a/c", True),
    ("a/**/c", "a/b/b/c", True),
    ("a/**/c", "a/b", False),
    # and, inside of a component, mean any number of whole directories
    ("**file", "file", True),
    ("**file", "dir/dir/file", True),
    ("**file", "dir/myfile", True),
    ("**file*", "dir/file1", True),
    ("**file*", "dir/myfile1", False),
    ("a**/*.txt", "a/file.txt", True),
    ("a**/*.txt", "a/dir/dir/file.txt", True),
    ("a/*.txt**", "a/file.txt", True),
    ("a/*.txt**", "a/file.txt/x", True),
    ("a**b", "ab", True),
    ("a**b", "a/x/b", True),
    ("a**b", "axb", False),
    ("a**", "abc/d", True),
    # the path is cleaned
    ("dir/", "dir", True),
    ("dir/", "dir/file", True),
    ("dir/  ", "dir/file", True),
    ("/dir", "dir/file", True),
    ("//dir", "dir", True),
    ("./dir", "dir/file", True),
    ("dir//sub/.", "dir/sub", True),
    ("dir/../file", "file", True),
    ("/../file", "file", True),
    ("../file", "file", False),
    ("..", "file", False),
    (".", "file", False),
    ("/", "file", False),
    ("dir/..", "dir", False),
    ("dir", "other/dir", False),
    ("dir", "dirt", False),
    # classes
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^b-d]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a[b-d]e", "ae", False),
    ("a[^b-d]e", "aze", True),
    ("a/[bc]", "a/c", True),
    (r"[\]a]", "]", True),
    (r"[\-]", "-", True),
    (r"[x\-]", "x", True),
    (r"[x\-]", "-", True),
    (r"[x\-]", "z", False),
    (r"[\-x]", "x", True),
    (r"[\-x]", "a", False),
    ("[!a]", "!", True),
    ("[!a]", "b", False),
    ("[*]", "*", True),
    ("[*]", "a", False),
    ("a[^b]c", "a/c", True),  # a class may stand for '/'
    ("a[+-9]c", "a/c", True),
    ("[a-ζ]*", "α", True),  # noqa: RUF001
    ("*[a-ζ]", "A", False),
    # escapes
    (r"a\*b", "a*b", True),
    (r"a\*b", "axb", False),
    (r"a\\", "a\\", True),
    (r"\!a", "!a", True),
    (r"\#a", "#a", True),
    (r"a\/b", "a/b", True),
    (r"**/a\[b", "x/a[b", True),
    # characters, not bytes; and no character is special that Go's Match does not know
    ("a?b", "a☺b", True),
    ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False),
    ("a?b", "a\udcffb", True),
    ("a\udcff", "a\udcff", True),
    ("abc.def", "abcZdef", False),
    ("a(b)c/def", "a(b)c/def", True),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
    ("^a*", "^ab", True),
    ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", True),
    ("a*b", "a\nb", True),
    ("File", "file", False),
    # blanks around a pattern are not part of it; inside they are
    ("  spaced  ", "spaced", True),
    ("\tspaced\u00a0\u2003", "spaced", True),
    ("two words", "two words", True),
    ("\x1fa", "\x1fa", True),
]


@pytest.mark.parametrize(("pattern", "path", "ignored"), ONE_PATTERN)
def test_one_pattern(pattern: str, path: str, ignored: bool) -> None:
    assert _rules(pattern).ignores(path) is ignored


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["!fileutils.go", "*.go"], "fileutils.go", True),
        (["*.go", "!fileutils.go"], "fileutils.go", False),
        (["docs", "!docs/README.md"], "docs/README.md", False),
        (["docs/", "!docs/README.md"], "docs/README.md", False),
        (["docs/*", "!docs/README.md"], "docs/README.md", False),
        (["docs", "  !docs/README.md  "], "docs/README.md", False),
        (["docs", "! /docs/README.md"], "docs/README.md", False),
        (["docs", "!docs/README.md"], "docs/other", True),
        (["**", "!util/docker/web"], "util/docker/web/foo", False),
        (["**", "!util/docker/web"], "util/docker/other", True),
        (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
        (["**", "!dist/*.whl"], "dist/a-1.0+b.whl", False),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*.md", "README-secret.md", "!README*.md"], "README-secret.md", False),
        (["a", "!a/b/**", "a/b/c"], "a/b/d/e", False),
        (["a", "!a/b/**", "a/b/c"], "a/b/c/e", True),
        (["a", "!a/b/**"], "a/b", True),
        (["a", "!**/keep"], "a/x/keep/y", False),
        (["x", "!!x"], "!x", False),
        (["*", "!!x"], "x", True),
    ],
)
def test_the_last_rule_that_matches_decides(lines: list[str], path: str, ignored: bool) -> None:
    assert _rules(*lines).ignores(path) is ignored


@pytest.mark.parametrize(
    ("lines", "directory", "walked"),
    [
        (["dir"], "dir", False),
        (["dir", "!dir/keep"], "dir", True),
        (["dir", "!dir/keep"], "dir/other", False),
        (["dir", "!other/keep"], "dir", False),
        (["dir", "!*/keep/this"], "dir", True),
        (["dir", "!*/keep/this"], "dir/a", False),
        (["dir", "!*/keep/this"], "dir/keep", True),
        (["dir", "!**/keep"], "dir/a/b/c", True),
        (["dir", "!dir/**"], "dir", True),
        (["dir", "!d**p"], "dir/a", True),
    ],
)
def test_only_an_ignored_directory_that_may_hold_an_exception_is_walked(
    lines: list[str], directory: str, walked: bool
) -> None:
    rules = _rules(*lines)
    assert rules.ignores(directory)
    assert rules.level(directory).keeps_below is walked


def test_comments_blank_lines_the_byte_order_mark_and_line_ends() -> None:
    rules = parse_ignore(b"\xef\xbb\xbf# one\r\n\r\n   \r\nfile\r\n #two\n/\n.\n a\x0bb\x0c\nlast")
    assert [
        path for path in ("# one", "#two", "file", "a\x0bb", "last", "other", "b") if rules.ignores(path)
    ] == [
        "#two",  # a comment begins at the very start of a line
        "file",
        "a\x0bb",
        "last",
    ]
    assert parse_ignore(b"\xef\xbb\xbffirst").ignores("first")
    assert not parse_ignore(b"")
    assert not parse_ignore(b"# only this")


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("[", 1),
        ("a[b", 2),
        ("[]", 2),
        ("[]a]", 2),
        ("[-]", 2),
        ("[x-]", 4),
        ("[-a]", 2),
        ("[a-b-c]", 5),
        ("[^", 1),
        ("[^bc", 1),
        ("a\\", 2),
        ("[z-a]", 2),
        ("[Local-Only]", 6),
        ("[a-", 1),
        ("  dir/./[", 9),
        ("! [", 3),
        ("!", 1),
        (" ! ", 2),
        ("!/", 2),
        ("name\\ ", 5),
    ],
)
def test_a_malformed_pattern_is_named_with_its_place(line: str, column: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_ignore(f"fine\r\n{line}\r\n".encode(), ".aosignore")
    assert caught.value.code == "ignore-invalid"
    assert caught.value.message.startswith(f".aosignore:2:{column}: ")


def test_what_is_no_pattern_of_go_is_not_refused_elsewhere() -> None:
    assert _rules("a]b", "a-b", "{x,y}", "a[[]").ignores("a]b")


_PATTERNS = st.lists(
    st.text("ab*?/.!", min_size=1, max_size=8).filter(lambda text: text.strip("!/. ") != ""), max_size=6
)


@given(_PATTERNS, st.lists(st.sampled_from(["a", "b", "ab", "ba", ".", "a.b"]), min_size=1, max_size=5))
def test_levels_say_what_every_pattern_tried_on_every_parent_says(lines: list[str], parts: list[str]) -> None:
    parts = [part for part in parts if part != "."] or ["a"]
    try:
        rules = _rules(*lines)
    except InvalidArgument:
        return
    expected = False
    for rule in rules.rules:
        prefixes = ("/".join(parts[: end + 1]) for end in range(len(parts)))
        if any(parse_glob(rule.glob.text).regex.fullmatch(prefix) for prefix in prefixes):
            expected = not rule.keeps
    assert rules.ignores("/".join(parts)) is expected
    if not expected:  # what is kept is always walked to
        for end in range(1, len(parts)):
            parent = "/".join(parts[:end])
            assert not rules.ignores(parent) or rules.level(parent).keeps_below


@given(st.binary(max_size=40), st.text(min_size=1, max_size=20))
def test_any_bytes_are_either_rules_or_a_clear_error(data: bytes, path: str) -> None:
    try:
        rules = parse_ignore(data)
    except InvalidArgument:
        return
    assert rules.ignores(path) in (True, False)


def test_ten_thousand_paths_and_fifty_patterns_are_quick() -> None:
    """0.02 s where this was written; every pattern tried on every parent takes 100 times as long."""
    names = [f"**/{name}" for name in ("node_modules", "__pycache__", "*.pyc", "*.o", ".git", "*~", "tmp*")]
    rules = _rules(
        *names,
        *(f"build/{n}/*.log" for n in range(20)),
        *(f"dir{n}" for n in range(20)),
        "*.md",
        "!README.md",
        "**/*.swp",
    )
    paths = [f"src/p{n // 500}/q{n // 50 % 10}/file_{n}.py" for n in range(10_000)]
    began = time.perf_counter()
    assert not any(rules.ignores(path) for path in paths)
    assert time.perf_counter() - began < 0.5
