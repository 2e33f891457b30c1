"""What `aos run` says of an agent's confinement, as parameters of `agent.run`; imported when something is said."""

from __future__ import annotations

import posix
from binascii import b2a_base64

from aos.cli import _values
from aos.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._options import Arguments

__all__ = ["parameters"]

_LARGEST = 1 << 20
_ULIMITS = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"),
    *("rss", "rtprio", "rttime", "sigpending", "stack"),
)


def parameters(args: Arguments) -> dict[str, Any]:
    found: dict[str, Any] = {"confinement": _confinement(args)}
    if args["read-only"]:
        found["read_only"] = True
    if args["disk"] is not None:
        found["disk"] = _values.parse_size(args["disk"], "--disk")
    if args["tmpfs"]:
        found["tmpfs"] = [_tmpfs(text) for text in args["tmpfs"]]
    if args["secret"]:
        found["secrets"] = [_secret(text) for text in args["secret"]]
    return found


def _confinement(args: Arguments) -> dict[str, Any]:
    found: dict[str, Any] = {
        "add_capabilities": args["cap-add"],
        "drop_capabilities": args["cap-drop"],
        "devices": args["device"],
        "ulimits": [_ulimit(text) for text in args["ulimit"]],
    }
    if args["userns"] is not None:
        found["users"] = args["userns"]
    for text in args["security-opt"]:
        key, _, value = text.partition("=")
        if key == "no-new-privileges" and value in ("", "true"):
            continue  # always so
        if key not in ("seccomp", "label") or not value:
            raise _wrong(
                "--security-opt", text, "seccomp=default, agent, unconfined or a file, or label=LABEL"
            )
        if key == "seccomp" and value not in ("default", "agent", "unconfined"):
            value = value if value.startswith("/") else f"{posix.getcwd()}/{value}"
        found[key] = value
    return found


def _ulimit(text: str) -> dict[str, object]:
    name, _, numbers = text.partition("=")
    soft, _, hard = numbers.partition(":")
    hard = hard or soft
    if name not in _ULIMITS or not (soft.isascii() and soft.isdigit() and hard.isascii() and hard.isdigit()):
        raise _wrong("--ulimit", text, f"NAME=SOFT[:HARD], such as nofile=1024; names: {', '.join(_ULIMITS)}")
    if int(soft) > int(hard):
        raise _wrong("--ulimit", text, "at most the hard limit")
    return {"name": name, "soft": int(soft), "hard": int(hard)}


def _tmpfs(text: str) -> dict[str, object]:
    """`TARGET[:SIZE]`, or docker's `TARGET:size=SIZE`."""
    target, _, size = text.partition(":")
    if not target.startswith("/"):
        raise _wrong("--tmpfs", text, "an absolute path, such as /tmp or /tmp:64m")
    if not size:
        return {"target": target}
    return {"target": target, "size": _values.parse_size(size.removeprefix("size="), "--tmpfs")}


def _secret(text: str) -> dict[str, object]:
    """`NAME=FILE` or `NAME=env:VARIABLE`. Errors say nothing of the text but the name: it may be the secret itself."""
    name, _, source = text.partition("=")
    if not name or not source:
        raise InvalidArgument(
            "--secret must be NAME=FILE or NAME=env:VARIABLE",
            code="secret-invalid",
            hint="such as --secret token=./token.txt; the value itself would stand in the list of processes",
        )
    if source.startswith("env:"):
        value = posix.environ.get(source[4:].encode("utf-8", "surrogateescape"))
        if value is None:
            raise _absent(name, "the variable is not set")
    else:
        try:
            descriptor = posix.open(source, posix.O_RDONLY)
        except OSError as error:
            raise _absent(name, error.strerror or "an error") from error
        value = b""
        try:
            while len(value) <= _LARGEST and (piece := posix.read(descriptor, 1 << 16)):
                value += piece
        except OSError as error:
            raise _absent(name, error.strerror or "an error") from error
        finally:
            posix.close(descriptor)
    return {"name": name, "data": b2a_base64(value, newline=False).decode()}


def _absent(name: str, why: str) -> NotFound:
    return NotFound(
        f"the secret {name!r} cannot be read: {why}", code="secret-not-found", hint="see what --secret names"
    )


def _wrong(option: str, text: str, wanted: str) -> InvalidArgument:
    return InvalidArgument(f"{option} must be {wanted}, not {text!r:.60}", code="usage")
