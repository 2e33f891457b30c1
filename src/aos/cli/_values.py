"""What people write in options and what it means: sizes, durations, moments, environment, mounts."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module: signal costs an enum
import posix
import time

from aos.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "count",
    "cpus",
    "environment",
    "mount",
    "parse_duration",
    "parse_moment",
    "parse_size",
    "parse_time",
    "restart_limit",
    "restart_policy",
]

_SIZES = {"": 0, "b": 0} | {
    unit + end: power for power, unit in enumerate("kmgt", 1) for end in ("", "b", "ib")
}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_size(text: str, option: str) -> int:
    """Read bytes as docker does: `512m`, `1.5g`, `64MiB`, `4096`; units are powers of 1024."""
    number = text.strip().lower().rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text.strip().lower()[len(number) :].strip()
    power = _SIZES.get(unit)
    value = _decimal(number)
    if power is None or value is None or value <= 0:
        raise _wrong(option, text, "a size above 0 such as 512m or 1.5g")
    return int(value * 1024**power)


def parse_duration(text: str, option: str) -> float:
    """Read seconds: `10`, `1.5`, `10s`, `1h30m`, `250ms`."""
    total, rest = 0.0, text
    plain = _decimal(text)
    if plain is not None:
        return plain
    while rest:
        number = ""
        while rest and (rest[0].isdigit() or rest[0] == "."):
            number, rest = number + rest[0], rest[1:]
        unit = "ms" if rest.startswith("ms") else rest[:1]
        rest = rest[len(unit) :]
        value = _decimal(number)
        if value is None or unit not in _SECONDS:
            raise _wrong(option, text, "a duration such as 30s, 10m or 1h30m")
        total += value * _SECONDS[unit]
    if not text:
        raise _wrong(option, text, "a duration such as 30s, 10m or 1h30m")
    return total


def parse_moment(text: str, option: str) -> float:
    """Read a moment as seconds since the epoch: RFC 3339, a date, epoch seconds, or how long ago (`10m`)."""
    if text[4:5] == "-":
        try:
            return parse_time(text)
        except ValueError:
            raise _wrong(
                option, text, "a time such as 2026-01-31T12:00:00Z, or how long ago such as 10m"
            ) from None
    seconds = _decimal(text)
    if (
        seconds is not None and seconds > 1e8
    ):  # 1973: nobody asks for what happened three years ago in seconds
        return seconds
    try:
        return time.time() - parse_duration(text, option)
    except InvalidArgument:
        raise _wrong(
            option, text, "a time such as 2026-01-31T12:00:00Z, or how long ago such as 10m"
        ) from None


def _month_length(year: int, month: int) -> int:
    """Of a month, in the Gregorian calendar."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


def parse_time(text: str) -> float:
    """Read an RFC 3339 timestamp or date; without an offset it is local time. Raises ValueError."""
    date, _, clock = text.replace("t", "T").replace(" ", "T", 1).partition("T")
    year, month, day = [int(part) for part in date.split("-")]
    if not (1 <= month <= 12 and 1 <= day <= _month_length(year, month)):
        raise ValueError(text)
    offset: float | None = None
    if clock[-1:] in ("Z", "z"):
        clock, offset = clock[:-1], 0.0
    elif len(clock) > 6 and clock[-6] in "+-":
        sign = -1 if clock[-6] == "-" else 1
        offset = sign * (int(clock[-5:-3]) * 3600 + int(clock[-2:]) * 60)
        clock = clock[:-6]
    parts = (clock or "0:0").split(":")
    hour, minute, second = int(parts[0]), int(parts[1]), float(parts[2] if len(parts) > 2 else 0)
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 61 and len(parts) <= 3):
        raise ValueError(text)
    if offset is None:
        return time.mktime((year, month, day, hour, minute, 0, 0, 0, -1)) + second
    return _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset


def count(text: str, option: str) -> int:
    """Read a whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise _wrong(option, text, "a whole number above 0")
    return int(text)


def cpus(text: str, option: str) -> float:
    """Read a number of CPUs, at least a hundredth."""
    value = _decimal(text)
    if value is None or value < 0.01:
        raise _wrong(option, text, "a number of CPUs such as 0.5 or 2")
    return value


def parse_signal(text: str, option: str) -> str:
    """Read `TERM`, `sigterm` or `15` as `TERM`."""
    from aos.cli._options import nearest

    word = text.upper().removeprefix("SIG")
    known = _signals()
    if word in known:
        return word
    if word.isascii() and word.isdigit() and int(word) in known.values():
        return signal_name(int(word))
    guess = nearest(word, known)
    raise InvalidArgument(
        f"{option} {text}: no such signal",
        code="signal-unknown",
        hint=f"did you mean {guess}?" if guess else "kill -l shows the names",
    )


def signal_name(number: int) -> str:
    return next(name for name, known in _signals().items() if known == number)


def _signals() -> dict[str, int]:
    return {
        name[3:]: number for name, number in vars(_signal).items() if name[:3] == "SIG" and name[3] != "_"
    }


def environment(entries: list[str], environ: Mapping[bytes, bytes]) -> dict[str, str]:
    """Read `-e KEY=VALUE`; `-e KEY` takes the value from our own environment, or nothing when it has none."""
    values: dict[str, str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key:
            raise _wrong("-e", entry, "KEY=VALUE or KEY")
        if equals:
            values[key] = value
        else:
            ours = environ.get(key.encode("utf-8", "surrogateescape"))
            if ours is not None:
                values[key] = ours.decode("utf-8", "surrogateescape")
    return values


def mount(text: str) -> dict[str, object]:
    """Read `-v SOURCE:TARGET[:ro|rw]`; a relative source with a slash is one of the current directory, one without
    (and not `.` or `..`) names a volume."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
        raise _wrong("-v", text, "SOURCE:TARGET or SOURCE:TARGET:ro")
    source, target = parts[:2]
    mode = parts[2] if len(parts) == 3 else "rw"
    if mode not in ("ro", "rw"):
        raise _wrong("-v", text, "SOURCE:TARGET:ro or SOURCE:TARGET:rw")
    if not target.startswith("/"):
        raise InvalidArgument(
            f"-v {text}: the target {target!r} must be an absolute path of the agent",
            code="mount-invalid",
            hint=f"write -v {source}:/{target}",
        )
    if "/" not in source and source not in (".", ".."):
        return {"source": source, "target": target, "read_only": mode == "ro"}
    path = source if source.startswith("/") else f"{posix.getcwd()}/{source}"
    try:
        posix.stat(path)
    except OSError as error:
        raise NotFound(
            f"-v {text}: {source}: {error.strerror}",
            code="mount-source-missing",
            hint="the source must be an existing file or directory of this host",
        ) from error
    return {"source": _normal(path), "target": target, "read_only": mode == "ro"}


def _normal(path: str) -> str:
    """Take `.` and doubled slashes out; `..` stays where a symbolic link may decide its meaning."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def restart_policy(text: str, option: str) -> str:
    """Read `never`, `on-failure`, `on-failure:N`, `always`, `unless-stopped`."""
    name, colon, number = text.partition(":")
    if name not in ("never", "on-failure", "always", "unless-stopped") or (colon and name != "on-failure"):
        raise _wrong(option, text, "never, on-failure, on-failure:N, always or unless-stopped")
    if colon:
        count(number, f"{option} on-failure:")
    return text


def restart_limit(text: str, option: str) -> dict[str, float]:
    """Read `N/TIME`: that many restarts within that time."""
    number, slash, within = text.partition("/")
    if not slash:
        raise _wrong(option, text, "a number of restarts and a time, such as 5/1m")
    seconds = parse_duration(within, option)
    if seconds <= 0:
        raise _wrong(option, text, "a number of restarts and a time above 0, such as 5/1m")
    return {"restarts": count(number, option), "within": seconds}


def _decimal(text: str) -> float | None:
    if not text or not all(c in "0123456789." for c in text):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _days(year: int, month: int, day: int) -> int:
    """Count days since 1970-01-01 in the Gregorian calendar (H. Hinnant, "chrono-compatible date algorithms")."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _wrong(option: str, value: str, expected: str) -> InvalidArgument:
    return InvalidArgument(f"{option} must be {expected}, not {value!r}", code="usage")
