"""The ignore rules, by the cases that the Dockerfile reference documents and moby's own tests name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.build.ignore import parse_ignore
from aos.errors import InvalidArgument


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*", "file", True),
        ("*", "dir/file", True),  # through its parent
        ("*.txt", "a.txt", True),
        ("*.txt", "dir/a.txt", False),
        ("*/temp*", "somedir/temporary.txt", True),
        ("*/temp*", "temp", False),
        ("*/*/temp*", "a/b/temporary.txt", True),
        ("temp?", "tempa", True),
        ("temp?", "temp", False),
        ("**/*.go", "main.go", True),
        ("**/*.go", "a/b/c.go", True),
        ("**", "anything/at/all", True),
        ("a/**", "a", False),
        ("a/**", "a/b", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("dir/", "dir", True),
        ("dir/", "dir/file", True),
        ("/dir", "dir/file", True),
        ("./dir", "dir/file", True),
        ("dir", "other/dir", False),
        ("dir/../file", "file", True),
        ("a/[bc]", "a/c", True),
        ("a/[^bc]", "a/c", False),
        ("a/[b-d]", "a/c", True),
        ("a[b]c", "abc", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        ("a.b", "axb", False),
        ("a+b(c)|{d}", "a+b(c)|{d}", True),
        (".*", ".hidden", True),
        ("[^a]b", "/b", False),
        ("  spaced  ", "spaced", True),
    ],
)
def test_one_pattern(pattern: str, path: str, ignored: bool) -> None:
    assert parse_ignore(pattern).ignores(path) is ignored


def test_the_last_rule_that_matches_decides() -> None:
    rules = parse_ignore("*.md\n!README*.md\nREADME-secret.md\n")
    assert [name for name in ("a.md", "README.md", "README-secret.md") if rules.ignores(name)] == [
        "a.md",
        "README-secret.md",
    ]
    assert not parse_ignore("*.md\nREADME-secret.md\n!README*.md\n").ignores("README-secret.md")


def test_an_exception_reaches_into_an_ignored_directory() -> None:
    rules = parse_ignore("dir\n!dir/keep\n")
    assert rules.ignores("dir/other")
    assert not rules.ignores("dir/keep")
    assert rules.can_keep_below


def test_comments_blank_lines_and_the_byte_order_mark_are_no_patterns() -> None:
    rules = parse_ignore("\N{ZERO WIDTH NO-BREAK SPACE}# comment\n\n   \nfile\n/\n.\n")
    assert rules.ignores("file")
    assert not rules.ignores("# comment")
    assert not rules.ignores("other")


@pytest.mark.parametrize("pattern", ["[", "a[b", "[]", "[-a]", "a\\", "[z-a]", "!", "[a-"])
def test_a_malformed_pattern_is_named_with_its_line(pattern: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_ignore(f"fine\n{pattern}\n", ".aosignore")
    assert caught.value.code == "ignore-invalid"
    assert caught.value.message.startswith(".aosignore:2:")


@given(st.text(max_size=40), st.text(min_size=1, max_size=20))
def test_any_text_is_either_rules_or_a_clear_error(text: str, path: str) -> None:
    try:
        rules = parse_ignore(text)
    except InvalidArgument:
        return
    assert rules.ignores(path) in (True, False)
