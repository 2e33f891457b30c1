from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('Basic realm="a \\"quoted\\" place"', [Challenge("basic", {"realm": 'a "quoted" place'})]),
        ("BASIC Realm=plain", [Challenge("basic", {"realm": "plain"})]),
        ("Negotiate", [Challenge("negotiate", {})]),
        ("Negotiate abc123==", [Challenge("negotiate", {})]),
        (
            'Basic realm="one", Bearer realm="two", service="three"',
            [Challenge("basic", {"realm": "one"}), Challenge("bearer", {"realm": "two", "service": "three"})],
        ),
        ('Negotiate, Basic realm="x"', [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        ('Negotiate abc=, Basic realm="x"', [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        ('Bearer realm="first",realm="second"', [Challenge("bearer", {"realm": "first"})]),
        ('Bearer realm = "spaced" , service = s', [Challenge("bearer", {"realm": "spaced", "service": "s"})]),
        ("", []),
        (",,, ", []),
        ('"no scheme"', []),
    ],
)
def test_a_header_is_understood(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges(header) == expected


def test_an_unclosed_quote_leaves_what_came_before() -> None:
    found = parse_challenges('Bearer service="s",realm="never closed')
    assert found[0] == Challenge("bearer", {"service": "s"})


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=200))
def test_any_header_gives_an_answer(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme == challenge.scheme.lower() != ""


TOKEN = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABC0123456789-_.", min_size=1, max_size=10)
TEXT = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.lists(
        st.tuples(TOKEN, st.dictionaries(TOKEN.map(str.lower), TEXT, min_size=1, max_size=3)), max_size=3
    )
)
def test_what_is_written_is_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        scheme + " " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges(header) == [
        Challenge(scheme.lower(), parameters) for scheme, parameters in challenges
    ]


def test_a_huge_header_is_cut() -> None:
    assert len(parse_challenges('Basic realm="x", ' * 10_000)) < 1000
