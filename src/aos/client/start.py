"""Start the node's daemon, detached from this session, and wait until it serves or says why it does not."""

from __future__ import annotations

import posix
import sys

from aos.client.codec import decode
from aos.errors import Unavailable, from_wire

__all__ = ["start_daemon"]

_PASSED_ON = (
    b"HOME",
    b"PATH",
    b"LANG",
    b"LC_ALL",
    b"TMPDIR",
    b"XDG_CONFIG_HOME",
    b"XDG_DATA_HOME",
    b"XDG_RUNTIME_DIR",
)
"""Besides AOS_*: the daemon outlives the session that started it, and must not depend on it."""
_CODE = (
    "import sys; sys.path[:0] = sys.argv[1:2]; from aos.compose.node import serve_node; serve_node(ready=3)"
)


def start_daemon() -> None:
    """Return once the daemon serves; a daemon that runs already is as good. Errors are the daemon's own."""
    reading, writing = posix.pipe()
    env = {
        name: value
        for name, value in posix.environ.items()
        if name in _PASSED_ON or name.startswith((b"AOS_", b"COVERAGE_"))
    }
    source = __file__.rsplit("/", 3)[0]
    argv = [sys.executable, "-I", "-c", _CODE, source]
    if posix.getuid() != 0:
        import os

        from aos.rootless.delegation import asking_systemd

        argv = [*asking_systemd(os.environ), *argv]
    actions = [
        (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDWR, 0),
        (posix.POSIX_SPAWN_DUP2, 0, 1),
        (posix.POSIX_SPAWN_DUP2, 0, 2),
        (posix.POSIX_SPAWN_DUP2, writing, 3),
    ]
    try:
        try:
            posix.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True)
        finally:
            posix.close(writing)
        word = b""
        while piece := posix.read(reading, 1 << 16):
            word += piece
    finally:
        posix.close(reading)
    if word == b"ready\n":
        return
    try:
        error = from_wire(decode(word.decode()))
    except ValueError:
        raise Unavailable(
            "the node's daemon ended while it started",
            code="daemon-failed",
            hint="`aos node` runs it in the foreground and shows why; `aos doctor` checks the host",
        ) from None
    raise error
