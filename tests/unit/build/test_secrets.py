"""Secrets: how they are named, read once, and kept out of what a step writes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.build.steps.sandbox import Lines
from aos.build.steps.secrets import Secrets, SecretSource, parse_secret
from aos.errors import AosError
from aos.redaction import Redaction

if TYPE_CHECKING:
    from pathlib import Path


def test_a_secret_is_named_as_docker_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("x")
    environ = {"VARIABLE": "y"}
    file, variable = SecretSource("token", file=tmp_path / "token"), SecretSource("VARIABLE", env="VARIABLE")
    assert parse_secret("id=token", environ) == file
    assert parse_secret("id=token,src=token", environ) == file
    assert parse_secret(f"type=file,id=token,source={tmp_path}/token", environ) == file
    assert parse_secret("id=VARIABLE", environ) == variable
    assert parse_secret("id=t,env=VARIABLE", environ) == SecretSource("t", env="VARIABLE")
    assert parse_secret("id=t,type=env,src=VARIABLE", environ) == SecretSource("t", env="VARIABLE")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "secret-invalid"),
        ("hunter2", "secret-invalid"),
        ("id=", "secret-invalid"),
        ("id=../x,src=f", "secret-invalid"),
        ("id=a,src=f,env=V", "secret-invalid"),
        ("id=a,id=b", "secret-invalid"),
        ("id=a,type=socket", "secret-invalid"),
        ("id=a,value=hunter2", "secret-invalid"),
        ("id=absent", "secret-not-found"),
        ("id=a,env=ABSENT", "secret-not-found"),
        ("id=a,src=/", "secret-not-found"),
    ],
)
def test_what_is_not_understood_is_told_without_repeating_it(text: str, code: str) -> None:
    with pytest.raises(AosError) as caught:
        parse_secret(text, {})
    assert caught.value.code == code
    assert "hunter2" not in str(caught.value.to_wire())


def test_a_secret_is_read_once_and_may_not_be_endless(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first")
    secrets = Secrets.of([SecretSource("t", file=tmp_path / "token"), SecretSource("v", env="V")], {"V": "w"})
    assert (secrets.get("t"), secrets.get("v"), secrets.get("other")) == (b"first", b"w", None)
    (tmp_path / "token").write_text("second")
    assert secrets.get("t") == b"first"
    assert "first" not in repr(secrets)
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(AosError, match="larger than 1 MiB"):
        Secrets.of([SecretSource("t", file=tmp_path / "large")], {}).get("t")


@given(
    secret=st.binary(min_size=1, max_size=80).filter(lambda value: value.strip() and b"*" not in value),
    around=st.lists(st.sampled_from([b"", b"x", b" and "]), min_size=2, max_size=5),
    before=st.sampled_from([0, 10, (1 << 16) - 5, 1 << 16, (1 << 16) + 30]),
    pieces=st.integers(1, 60),
    encoded=st.booleans(),
)
def test_no_cut_of_the_output_lets_a_secret_through(
    secret: bytes, around: list[bytes], before: int, pieces: int, encoded: bool
) -> None:
    """Whole, in one line, or as base64: however the bytes arrive, and however long the line is."""
    word = secret.strip()
    if b"\n" in word:
        return
    looked_for = base64.b64encode(word[: len(word) // 3 * 3]) if encoded and len(word) >= 9 else word
    text = b"-" * before + looked_for.join(around) + b"\n"
    said: list[str] = []
    lines = Lines(said.append, Redaction([secret + b"\n"]))
    size = len(text) // pieces + 1
    for start in range(0, len(text), size):
        lines.feed(2, text[start : start + size])
    lines.end()
    shown = "".join(said)
    assert "***" in shown
    assert looked_for.decode(errors="replace") not in shown.replace("***", "\n")


def test_the_lines_of_a_secret_are_covered_but_not_its_small_change() -> None:
    redact = Redaction([b"{\n  key: long-enough\n}\n"])
    assert redact(b"{ key: long-enough }") == b"{ *** }"
    assert Redaction([b"  \n"])(b"  x ") == b"  x "
