"""`aos node`: the daemon of this installation. Stopping it ends no agent."""

from __future__ import annotations

import fcntl
import posix
import time

from aos.cli import _node
from aos.cli._options import OUTPUT, Verb
from aos.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._options import Arguments

__all__ = ["VERBS"]

_STOP_SECONDS = 15.0


def foreground(args: Arguments) -> int:
    from aos.compose.node import serve_node

    serve_node()
    return 0


def start(args: Arguments) -> int:
    try:
        hello = _hello(start=False)
    except Unavailable as error:
        if error.code != "daemon-not-running":
            raise
    else:
        print(f"the node runs already (pid {hello['pid']})")
        return 0
    hello = _hello(start=True)
    print(f"the node runs (pid {hello['pid']})")
    return 0


def stop(args: Arguments) -> int:
    stopped = _stop()
    print("the node has stopped; its agents go on" if stopped else "the node was not running")
    return 0


def restart(args: Arguments) -> int:
    _stop()
    hello = _hello(start=True)
    print(f"the node runs (pid {hello['pid']})")
    return 0


def status(args: Arguments) -> int:
    from aos.cli._output import duration, print_json, size, wants_json

    try:
        with _node.connect(start=False) as node:
            found = node.call("node.status")
    except Unavailable as error:
        if error.code != "daemon-not-running":
            raise
        if wants_json(args):
            print_json({"running": False})
        else:
            print("the node is not running; the first verb that needs it starts it")
        return 0
    if wants_json(args):
        print_json({"running": True, **found})
        return 0
    journal = found["journal"]
    for name, text in (
        (
            "node",
            f"aos {found['version']}, pid {found['pid']}, up {duration(time.time() - found['started_at'])}",
        ),
        ("root", found["root"]),
        ("state", found["state"]),
        ("agents", f"{found['agents']}, {found['running']} running"),
        ("memory", size(found["rss_bytes"])),
        ("journal", f"{journal['events']} events, {size(journal['bytes'])}"),
        ("log", f"{found['root']}/node/aosd.log"),
    ):
        print(f"{name:<9}{text}")
    return 0


def _hello(*, start: bool) -> dict[str, Any]:
    with _node.connect(start=start) as node:
        found: dict[str, Any] = node.call("node.status")
        return found


def _stop() -> bool:
    """Whether one ran. Returns once it has let go of its lock, so that the next one can have it."""
    from aos.client.where import state_directory

    try:
        with _node.connect(start=False) as node:
            node.call("node.stop")
    except Unavailable as error:
        if error.code == "daemon-not-running":
            return False
        if error.code != "connection-lost":  # gone as it answered
            raise
    lock = posix.open(state_directory(posix.environ) + "/kernel/aosd.lock", posix.O_RDWR | posix.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _STOP_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"the node did not stop within {_STOP_SECONDS:g} s",
                        code="daemon-stuck",
                        hint="its log may say why; `kill -9` harms no agent",
                    ) from None
                time.sleep(0.01)
            else:
                return True
    finally:
        posix.close(lock)


VERBS = {
    "": (Verb("Be the daemon, in the foreground, until it is stopped"), foreground),
    "start": (Verb("Start the daemon, unless it runs"), start),
    "stop": (Verb("Stop the daemon; agents go on"), stop),
    "restart": (Verb("Stop the daemon and start it again; agents go on"), restart),
    "status": (Verb("Show the daemon", options=(OUTPUT,)), status),
}
