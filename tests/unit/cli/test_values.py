from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.cli import _values
from aos.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1b", 1),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512mb", 512 << 20),
        ("512MiB", 512 << 20),
        ("1.5g", 3 << 29),
        ("2 k", 2048),
        ("1t", 1 << 40),
    ],
)
def test_size(text: str, size: int) -> None:
    assert _values.parse_size(text, "--memory") == size


@pytest.mark.parametrize(
    "text", ["", "m", "0", "-1", "1x", "1mm", "1.2.3m", "inf", "nan", "1e9", "٣", "1 2m", "1bb"]
)
def test_wrong_size(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--memory must be a size"):
        _values.parse_size(text, "--memory")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("0", 0), ("1.5", 1.5), ("10s", 10), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172_800)],
)
def test_duration(text: str, seconds: float) -> None:
    assert _values.parse_duration(text, "-t") == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "-5", "1h30", "h1", "1..5s"])
def test_wrong_duration(text: str) -> None:
    with pytest.raises(InvalidArgument, match="-t must be a duration"):
        _values.parse_duration(text, "-t")


@given(st.datetimes(min_value=datetime(1901, 1, 1), max_value=datetime(2400, 1, 1)))
def test_time_agrees_with_the_standard_library(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    for text in (aware.isoformat(), aware.isoformat().replace("+00:00", "Z")):
        assert _values.parse_time(text) == pytest.approx(aware.timestamp(), abs=1e-3)


def test_time_with_offset_and_local_time() -> None:
    assert _values.parse_time("1970-01-01T02:00:00.5+02:00") == 0.5
    assert _values.parse_time("1970-01-01T00:00:00-01:30") == 5400
    assert _values.parse_time("2026-01-31") == datetime(2026, 1, 31).timestamp()
    assert _values.parse_time("2026-07-01 12:30") == datetime(2026, 7, 1, 12, 30).timestamp()


@pytest.mark.parametrize(
    "text", ["", "x", "2026-13-01", "2026-01-32", "2026-01-01T25:00", "2026-01-01T1:2:3:4"]
)
def test_wrong_time(text: str) -> None:
    with pytest.raises(ValueError):
        _values.parse_time(text)


def test_moment() -> None:
    assert _values.parse_moment("10m", "--since") == pytest.approx(time.time() - 600, abs=5)
    assert _values.parse_moment("30", "--since") == pytest.approx(time.time() - 30, abs=5)
    assert _values.parse_moment("1700000000.5", "--since") == 1_700_000_000.5
    assert _values.parse_moment("1970-01-02T00:00:00Z", "--since") == 86_400
    assert _values.parse_moment("2000-02-29T00:00:00Z", "--since") == 951_782_400


@pytest.mark.parametrize("text", ["", "yesterday", "2026-99-01", "2026-02-29", "10 parsecs"])
def test_wrong_moment(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--since must be a time"):
        _values.parse_moment(text, "--since")


@pytest.mark.parametrize(
    ("text", "name"),
    [("TERM", "TERM"), ("sigterm", "TERM"), ("15", "TERM"), ("9", "KILL"), ("SIGUSR1", "USR1")],
)
def test_signal(text: str, name: str) -> None:
    assert _values.parse_signal(text, "-s") == name


@pytest.mark.parametrize(
    ("text", "hint"),
    [("TREM", "did you mean TERM?"), ("0", "kill -l shows the names"), ("99", "kill -l shows the names")],
)
def test_wrong_signal(text: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _values.parse_signal(text, "-s")
    assert (caught.value.code, caught.value.hint) == ("signal-unknown", hint)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", "²"])
def test_wrong_count(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--pids must be a whole number"):
        _values.count(text, "--pids")


def test_count_and_cpus() -> None:
    assert _values.count("12", "--pids") == 12
    assert _values.cpus("0.5", "--cpus") == 0.5


@pytest.mark.parametrize("text", ["0", "0.001", "-1", "many", "nan", "inf", ""])
def test_wrong_cpus(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--cpus must be a number of CPUs"):
        _values.cpus(text, "--cpus")


def test_environment() -> None:
    ours = {b"HOME": b"/root", b"RAW": b"\xff"}
    assert _values.environment(["A=1", "B=x=y", "C=", "HOME", "ABSENT", "A=2"], ours) == {
        "A": "2",
        "B": "x=y",
        "C": "",
        "HOME": "/root",
    }
    with pytest.raises(InvalidArgument, match="KEY=VALUE or KEY"):
        _values.environment(["=x"], ours)


def test_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert _values.mount(f"{tmp_path}:/data") == {
        "source": str(tmp_path),
        "target": "/data",
        "read_only": False,
    }
    assert _values.mount("./data:/data:ro") == {
        "source": f"{tmp_path}/data",
        "target": "/data",
        "read_only": True,
    }
    assert _values.mount("data:/data:rw")["source"] == "data"  # a volume, though there is a directory
    assert _values.mount(".:/data")["source"] == str(tmp_path)
    assert _values.mount("data/..:/data")["source"] == f"{tmp_path}/data/.."


@pytest.mark.parametrize("text", ["", "/tmp", ":/x", "/tmp:", "/tmp:/x:ro:z", "/tmp:/x:readonly"])
def test_wrong_mount(text: str) -> None:
    with pytest.raises(InvalidArgument, match="-v must be"):
        _values.mount(text)


def test_mount_to_a_relative_target_or_from_nowhere() -> None:
    with pytest.raises(InvalidArgument) as caught:
        _values.mount("/tmp:data")
    assert (caught.value.code, caught.value.hint) == ("mount-invalid", "write -v /tmp:/data")
    with pytest.raises(NotFound) as missing:
        _values.mount("/no/such:/data")
    assert missing.value.code == "mount-source-missing"
