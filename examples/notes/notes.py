"""A notebook over HTTP: GET / lists, POST / adds, GET and DELETE /<number> read and remove. Standard library only.

A note is a file of the volume at /data. It is there whole or not at all, whenever the agent is killed.
"""

import json
import os
import signal
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DATA = Path(os.environ.get("NOTES", "/data"))
PORT = int(os.environ.get("PORT", "8080"))
LARGEST = 1 << 20  # bytes
_adding = threading.Lock()


def numbers() -> list[int]:
    return sorted(int(path.name) for path in DATA.iterdir() if path.name.isdecimal())


def add(text: bytes) -> int:
    """Write a note; return its number."""
    with _adding:
        number = max(numbers(), default=0) + 1
        new = DATA / ".new"
        with new.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(DATA / str(number))
    return number


class Notes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/healthz":
            writable = os.access(DATA, os.W_OK)
            self.answer(HTTPStatus.OK if writable else HTTPStatus.SERVICE_UNAVAILABLE, b"")
        elif self.path == "/":
            self.answer(HTTPStatus.OK, json.dumps(numbers()).encode() + b"\n")
        elif (note := self.note()) is not None:
            self.answer(HTTPStatus.OK, note.read_bytes())

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self.close_connection = True
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"")
        elif self.path != "/":
            self.answer(HTTPStatus.NOT_FOUND, b"")
        else:
            number = add(self.rfile.read(int(length)))
            self.answer(HTTPStatus.CREATED, b"%d\n" % number)

    def do_DELETE(self) -> None:
        if (note := self.note()) is not None:
            note.unlink(missing_ok=True)
            self.answer(HTTPStatus.OK, b"")

    def note(self) -> Path | None:
        """The file that the path names; None once the answer is that there is none."""
        name = self.path.removeprefix("/")
        if name.isdecimal() and (DATA / str(int(name))).is_file():
            return DATA / str(int(name))
        self.answer(HTTPStatus.NOT_FOUND, b"no such note\n")
        return None

    def answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        if self.path != "/healthz":
            print(format % args, flush=True)


def main() -> None:
    server = ThreadingHTTPServer(("", PORT), Notes)
    # `shutdown` waits for the loop below, which the handler interrupts.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{len(numbers())} notes in {DATA}, port {PORT}", flush=True)
    server.serve_forever()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
