"""`Agentfile.lock`: one text for one lock, and every kind of damage told in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.agentfile.lock import Lock, LockedStep, load_lock, read_lock, save_lock
from aos.agentfile.pins import DebianPackage, PythonFile, digests_of
from aos.errors import AosError, FailedPrecondition, InvalidArgument

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
LOCK = Lock(
    "hello",
    "linux/amd64",
    (("busybox:1", A),),
    (
        LockedStep(
            "", "plugin debian", ('{"suite": "bookworm"}',), (f"apt 2.6.2 amd64 {A} bookworm/main required",)
        ),
        LockedStep("tools", "install apt", ("bc",), (f"bc 1:1.07.1-3+b1 amd64 {B}",)),
        LockedStep(
            "tools", "install pip", ("rich>=13", "no"), (f"rich 13.9.4 rich-13.9.4-py3-none-any.whl {A}",)
        ),
        LockedStep("", "install pip", (), ()),
    ),
)

_words = st.text(max_size=20)
_names = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True)
_versions = st.from_regex(r"[0-9]+(\.[0-9]+){0,3}((a|b|rc)[0-9])?", fullmatch=True)
_digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
_python = st.builds(
    lambda name, version, digest: (
        f"{name} {version} {name.replace('-', '_')}-{version}-py3-none-any.whl {digest}"
    ),
    _names,
    _versions,
    _digests,
)
_printable = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co")), max_size=30).filter(
    lambda text: "\ufeff" not in text
)
_locks = st.builds(
    Lock,
    _names,
    st.just("linux/amd64"),
    st.lists(st.tuples(_names, _digests), max_size=3).map(lambda pairs: tuple(sorted(dict(pairs).items()))),
    st.lists(
        st.builds(
            LockedStep,
            _names | st.just(""),
            st.just("install pip"),
            st.lists(_printable, max_size=4).map(tuple),
            st.lists(_python, max_size=4).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
)


@given(_locks)
def test_any_lock_comes_back(lock: Lock) -> None:
    text = lock.to_text()
    assert read_lock(text.encode()) == lock
    assert read_lock(text.encode()).to_text() == text


def test_a_lock_reads_as_a_person_reads_it() -> None:
    text = LOCK.to_text()
    assert "agent: hello\nplatform: linux/amd64\nbases:\n- busybox:1 sha256:aaa" in text
    assert f"\n  - bc 1:1.07.1-3+b1 amd64 {B}\n" in text
    assert '\n  - \'{"suite": "bookworm"}\'\n' in text
    assert text.endswith("  asks: []\n  pins: []\n")
    found = read_lock(text.encode(), "x.lock")
    assert found == LOCK
    assert [step.location for step in found.steps[:2]] == ["x.lock:9", "x.lock:15"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (f"amd64 {B}", "amd64 sha256:123", "Agentfile.lock:20:5: 'sha256:123' is not sha256: and 64"),
        (
            "rich 13.9.4 rich",
            "rich 13.9.4 poor",
            "Agentfile.lock:27:5: poor-13.9.4-py3-none-any.whl is not a file of rich",
        ),
        (f"rich-13.9.4-py3-none-any.whl {A}", A, "Agentfile.lock:27:5: a Python pin is four words"),
        ("rich-13.9.4-py3-none-any.whl", "../../etc/passwd", "is not the name of a wheel"),
        ("- bc 1:1", "- -x 1:1", "is not a package name"),
        ("  install: apt", "  instal: apt", "did you mean 'install'?"),
        ("  pins:\n  - bc", "  - bc", "Agentfile.lock:1"),
        ("agent: hello", "agent: [hello]", "Agentfile.lock:4:8: agent must be a string"),
        ("bases:\n- busybox:1 ", "bases:\n- busybox:1 x", "a base is a reference and a digest"),
        ("<", "<", ""),
        ("steps:", "<<<<<<< HEAD\nsteps:", "Agentfile.lock:"),
        ("lock: 1", "lock: one", "Agentfile.lock:3:7: lock must be a whole number"),
        ("lock: 1\n", "", "a lock needs 'lock'"),
    ],
)
def test_damage_is_told_in_its_place(before: str, after: str, told: str) -> None:
    text = LOCK.to_text()
    if before == "<":
        data = text.encode()[:200]
    else:
        assert before in text
        data = text.replace(before, after, 1).encode()
    with pytest.raises(InvalidArgument) as caught:
        read_lock(data)
    assert caught.value.code == "lock-invalid"
    assert told in caught.value.message
    assert "aos lock" in (caught.value.hint or "")


@given(st.binary(max_size=200))
def test_no_bytes_are_a_traceback(data: bytes) -> None:
    with pytest.raises(AosError):
        read_lock(data)


def test_a_newer_format_is_not_guessed_at() -> None:
    with pytest.raises(FailedPrecondition, match="format 2") as caught:
        read_lock(LOCK.to_text().replace("lock: 1", "lock: 2").replace("pins:", "things:").encode())
    assert caught.value.code == "lock-version"


def test_a_lock_is_a_file(tmp_path: pytest.TempPathFactory) -> None:
    path = tmp_path / "Agentfile.lock"  # type: ignore[operator]
    assert load_lock(path) is None
    save_lock(LOCK, path)
    assert load_lock(path) == LOCK
    assert [file.name for file in path.parent.iterdir()] == ["Agentfile.lock"]
    path.unlink()
    path.mkdir()
    with pytest.raises(InvalidArgument) as caught:
        load_lock(path)
    assert caught.value.code == "lock-invalid"


@pytest.mark.parametrize(
    "line",
    [
        f"libc6 2.36-9+deb12u9 amd64 {A}",
        f"libc6 2.36 amd64 {A} bookworm/main",
        f"libc6 2.36 amd64 {A} bookworm/main required",
        f"libc6 2.36 amd64 {A} - required",
    ],
)
def test_a_debian_pin_is_one_line(line: str) -> None:
    assert DebianPackage.parse(line).to_line() == line


def test_a_debian_pin_knows_its_file() -> None:
    pin = DebianPackage.of_file("passwd_1%3a4.13+dfsg1-1_amd64.deb", A)
    assert (pin.name, pin.version, pin.architecture) == ("passwd", "1:4.13+dfsg1-1", "amd64")
    assert pin.file == "passwd_1%3a4.13+dfsg1-1_amd64.deb"


def test_pins_tell_their_digests() -> None:
    python = PythonFile.parse(f"a-b 1.0 a_b-1.0-py3-none-any.whl {B}")
    assert digests_of([python.to_line(), "commit 1234", f"bc 1 all {A}"]) == (B, A)
