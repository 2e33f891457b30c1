from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.cli import _log
from aos.cli._log import Printer, start_of_tail

if TYPE_CHECKING:
    from pathlib import Path


class Written:
    """What went to standard output and standard error, and in which order the writes came."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []

    def __call__(self, descriptor: int, data: bytes) -> None:
        self.writes.append((descriptor, data))

    def of(self, descriptor: int) -> bytes:
        return b"".join(data for to, data in self.writes if to == descriptor)


def record(second: int, stream: str, tag: str, text: bytes) -> bytes:
    return f"2026-01-31T12:00:{second:02}.000000000+00:00 {stream} {tag} ".encode() + text + b"\n"


def encode(stream: str, data: bytes, piece: int = 4) -> bytes:
    """As conmon writes it: a record for each piece of a line, the last one F if the line ended."""
    out = b""
    for line in data.splitlines(keepends=True) if b"\r" not in data else [data]:
        body, whole = (line[:-1], True) if line.endswith(b"\n") else (line, False)
        pieces = [body[i : i + piece] for i in range(0, len(body), piece)] or [b""]
        for part in pieces[:-1]:
            out += record(0, stream, "P", part)
        out += record(0, stream, "F" if whole else "P", pieces[-1])
    return out


def test_lines_parts_and_streams() -> None:
    written = Written()
    printer = Printer(written)
    printer.feed(
        record(1, "stdout", "F", b"one") + record(2, "stdout", "P", b"tw") + record(2, "stdout", "F", b"o")
    )
    printer.feed(record(3, "stderr", "F", b"bad") + record(4, "stdout", "P", b"no newline"))
    assert written.writes == [(1, b"one\ntwo\n"), (2, b"bad\n"), (1, b"no newline")]


def test_blanks_inside_and_empty_lines_survive() -> None:
    written = Written()
    Printer(written).feed(record(1, "stdout", "F", b"  a  b ") + record(1, "stdout", "F", b""))
    assert written.of(1) == b"  a  b \n\n"


@given(
    st.binary(max_size=60).map(
        lambda data: data.replace(b"\r", b"").replace(b"\x0b", b"").replace(b"\x0c", b"")
    ),
    st.integers(1, 50),
)
def test_bytes_come_out_as_they_were_however_they_arrive(data: bytes, step: int) -> None:
    data = bytes(byte for byte in data if byte not in b"\x1c\x1d\x1e\x85")
    log = encode("stdout", data)
    written = Written()
    printer = Printer(written)
    for start in range(0, len(log), step):
        printer.feed(log[start : start + step])
    assert written.of(1) == data


def test_torn_records_are_left_out() -> None:
    written = Written()
    Printer(written).feed(b"garbage\n\0\0\0\n" + record(1, "stdout", "F", b"good") + b"2026 stdlog F x\n")
    assert written.of(1) == b"good\n"


def test_timestamps_stand_once_before_each_line() -> None:
    written = Written()
    Printer(written, timestamps=True).feed(
        record(1, "stdout", "P", b"a") + record(2, "stdout", "F", b"b") + record(3, "stdout", "F", b"c")
    )
    assert written.of(1) == (
        b"2026-01-31T12:00:01.000000000+00:00 ab\n2026-01-31T12:00:03.000000000+00:00 c\n"
    )


@pytest.mark.parametrize("offset", ["+00:00", "Z"])
def test_since(offset: str) -> None:
    log = b"".join(
        f"2026-01-31T12:00:00.{tenth}00000000{offset} stdout F {tenth}\n".encode() for tenth in range(10)
    )
    written = Written()
    Printer(written, since=1_769_860_800.45).feed(log)
    assert written.of(1) == b"5\n6\n7\n8\n9\n"


def test_since_minds_the_offset() -> None:
    written = Written()
    Printer(written, since=1_769_860_800).feed(
        b"2026-01-31T13:00:00.0+02:00 stdout F before\n2026-01-31T13:00:00.0+01:00 stdout F at\n"
    )
    assert written.of(1) == b"at\n"


@pytest.mark.parametrize("block", [7, 64, 1 << 18])
@pytest.mark.parametrize("text", [b"", b"a\n", b"a\nbb\n\nlonger line\nx\n", b"a\nb\nno end"])
def test_tail(text: bytes, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_log, "_BLOCK", block)
    path = tmp_path / "log"
    path.write_bytes(encode("stdout", text))
    with path.open("rb") as log:
        for count in range(8):
            written = Written()
            offset = start_of_tail(log.fileno(), count)
            Printer(written).feed(os.pread(log.fileno(), 1 << 20, offset))
            lines = text.splitlines(keepends=True)
            assert written.of(1) == b"".join(lines[len(lines) - count if count < len(lines) else 0 :])
