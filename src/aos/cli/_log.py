"""An agent's log: the Kubernetes CRI format, `<RFC 3339 time> <stdout|stderr> <P|F> <text>` a line.

P: the text is a part of a line, F: it is the end of one. What a process wrote comes out byte for byte.
"""

from __future__ import annotations

import posix

from aos.cli._values import parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Printer", "start_of_tail"]

_BLOCK = 1 << 18
_SEEK_END = 2


class Printer:
    """Turns log bytes into what the process wrote; keeps what is not a whole record yet."""

    def __init__(
        self,
        write: Callable[[int, bytes], None],
        *,
        since: float | None = None,
        timestamps: bool = False,
        prefix: bytes = b"",
    ) -> None:
        """`prefix`: stands before each line, whose it is."""
        self._write = write
        self.redact: Callable[[bytes], bytes] | None = None
        """Takes out of each record what must not be shown."""
        self._prefix = prefix
        self._since = since
        self._timestamps = timestamps
        self._rest = b""
        self._inside = {b"stdout": False, b"stderr": False}
        self._moment = (b"", 0.0)

    def feed(self, data: bytes) -> None:
        """Print all whole records. Consecutive records of one stream are written at once."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        target = 1
        out: list[bytes] = []
        for line in lines:
            parts = line.split(b" ", 3)
            if len(parts) < 3 or parts[1] not in self._inside:
                continue  # torn by a crash of the host: the records around it are good
            at, stream, tag = parts[:3]
            if self._since is not None and self._at(at) < self._since:
                continue
            descriptor = 2 if stream == b"stderr" else 1
            if descriptor != target:
                if out:
                    self._write(target, b"".join(out))
                target, out = descriptor, []
            if not self._inside[stream]:
                out.append(self._prefix)
                if self._timestamps:
                    out.append(at + b" ")
            text = parts[3] if len(parts) > 3 else b""
            out.append(text if self.redact is None else self.redact(text))
            whole = not tag.startswith(b"P")
            if whole:
                out.append(b"\n")
            self._inside[stream] = not whole
        if out:
            self._write(target, b"".join(out))

    def _at(self, text: bytes) -> float:
        """Seconds since the epoch; a log has many records a second, so the last answer is kept."""
        second = text[:19] + _offset(text)
        if second != self._moment[0]:
            try:
                self._moment = (second, parse_time(second.decode()))
            except (ValueError, IndexError):
                self._moment = (second, float("inf"))
        fraction = text[19:].partition(b".")[2][:9]
        digits = fraction.rstrip(b"Z+-:").partition(b"+")[0].partition(b"-")[0]
        return self._moment[1] + (float(b"0." + digits) if digits.isdigit() else 0.0)


def start_of_tail(log: int, count: int) -> int:
    """Find the offset from which the log has the last `count` lines; a line may be many records."""
    start = end = posix.lseek(log, 0, _SEEK_END)
    found = 0
    for offset, record in _backwards(log, end):
        if not record:
            continue  # after the last newline
        parts = record.split(b" ", 3)
        part = len(parts) > 2 and parts[2].startswith(b"P")
        if not part or start == end:  # the end of a line, or what there is of the last one
            if found == count:
                return start
            found += 1
        start = offset
    return 0


def _backwards(log: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and text of each record, last first."""
    position, head = end, b""
    while position > 0:
        length = min(_BLOCK, position)
        position -= length
        records = (posix.pread(log, length, position) + head).split(b"\n")
        head = records[0]
        offset = position + sum(map(len, records)) + len(records) - 1
        for record in reversed(records[1:]):
            offset -= len(record)
            yield offset, record
            offset -= 1
    yield 0, head


def _offset(text: bytes) -> bytes:
    return b"Z" if text.endswith((b"Z", b"z")) else text[-6:]
