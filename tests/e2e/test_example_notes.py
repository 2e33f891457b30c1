"""examples/notes as its first lines say: a volume, a published port, a health check, and notes that survive all of it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fix_installation import requires

if TYPE_CHECKING:
    from fix_installation import Installation

pytestmark = [pytest.mark.root, pytest.mark.network]

NOTES = Path(__file__).parents[2] / "examples/notes"


def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def healthy(aos: Installation) -> None:
    deadline = time.monotonic() + 30
    while "(healthy)" not in aos("ps").out:
        assert time.monotonic() < deadline, aos("ps", "-a").out + aos("logs", "notes").err
        time.sleep(0.05)


def test_notes_are_kept_whatever_happens(aos: Installation) -> None:
    requires("mmdebstrap")
    aos("build", "-t", "notes:1", NOTES, timeout=300)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("-v", "notes:/data", "-p", f"{port}:8080")
    aos("run", "-d", "--name", "notes", *options, "notes:1")
    healthy(aos)
    assert ask(port, "POST", "/", b"buy milk") == (201, b"1\n")
    assert ask(port, "POST", "/", b"call home") == (201, b"2\n")
    assert ask(port, "GET", "/1") == (200, b"buy milk")
    assert ask(port, "GET", "/3")[0] == 404

    aos.kill_daemon()
    assert ask(port, "DELETE", "/2") == (200, b"")
    aos("stop", "notes")
    assert aos("wait", "notes").out == "0\n"
    assert aos("logs", "notes").out.endswith("stopped\n")
    aos("rm", "notes")

    aos("run", "-d", "--name", "notes", *options, "notes:1")
    healthy(aos)
    assert json.loads(ask(port, "GET", "/")[1]) == [1]
    aos("rm", "-f", "notes")
    aos("volume", "rm", "notes")
