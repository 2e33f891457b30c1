"""Registries on loopback: Debian's docker-registry as the real peer, and a stub that misbehaves on request.

docker_registry    (session) a real one, empty, open to all
stub_registry      an in-memory one, spoken to over real sockets, with faults
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fix_installation import requires

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

USER, PASSWORD = "ali", "open sesame"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
"""The line for them, bcrypt: what docker-registry accepts."""


@contextlib.contextmanager
def run_docker_registry(**extra: Any) -> Iterator[str]:
    """A docker-registry on a free loopback port; `localhost:<port>`. `extra` goes into its configuration."""
    requires("docker-registry")
    with tempfile.TemporaryDirectory(prefix="registry-") as home:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": f"{home}/data"}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        for room, values in extra.items():
            config[room] = {**config.get(room, {}), **values}  # type: ignore[dict-item]
        file = Path(home, "config.yml")
        file.write_text(json.dumps(config))  # JSON is YAML
        command = shutil.which("docker-registry")
        assert command
        process = subprocess.Popen(
            [command, "serve", str(file)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert process.stderr is not None
        said = b""
        for line in process.stderr:
            said += line
            if b"listening on" in line:
                break
        else:
            raise AssertionError(f"docker-registry did not start:\n{said.decode()}")
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        try:
            yield f"localhost:{port}"
        finally:
            process.terminate()
            process.wait(10)
            drain.join()
            process.stderr.close()


@pytest.fixture(scope="session")
def docker_registry() -> Iterator[str]:
    with run_docker_registry() as host:
        yield host


@dataclass
class Asked:
    """One request, and the means to answer it."""

    handler: BaseHTTPRequestHandler
    method: str
    path: str
    query: dict[str, str]
    body: bytes

    @property
    def headers(self) -> Any:
        return self.handler.headers

    def answer(self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> None:
        """Send a response; a `length` beyond the body's breaks the connection after the body."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        if self.method != "HEAD":
            self.handler.wfile.write(body)
        if length is not None and length != len(body):
            self.handler.close_connection = True


@dataclass
class StubRegistry:
    """Enough of the distribution specification 1.1 to push to and pull from, without a storage."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """`METHOD path`, in order."""
    authorizations: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    faults: list[Callable[[Asked], bool]] = field(default_factory=list)
    """Asked first, in order; the first that returns True has answered."""

    def add_blob(self, data: bytes) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"digest": digest, "size": len(data)}

    def fault(
        self, function: Callable[[Asked], None], *, method: str = "GET", path: str = "", times: int = 1
    ) -> None:
        """Let `function` answer the next `times` requests of a method whose path matches."""
        left = [times]

        def maybe(asked: Asked) -> bool:
            if left[0] and asked.method == method and re.search(path, asked.path):
                left[0] -= 1
                function(asked)
                return True
            return False

        self.faults.append(maybe)

    def handle(self, asked: Asked) -> None:
        self.requests.append(f"{asked.method} {asked.path}")
        self.authorizations.append(asked.headers.get("Authorization", ""))
        if asked.headers.get("Range"):
            self.ranges.append(asked.headers["Range"])
        if any(fault(asked) for fault in self.faults):
            return
        if asked.path == "/v2/":
            return asked.answer(200)
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|blobs/uploads)/([^/]*)", asked.path)
        if match is None:
            return asked.answer(404)
        name, kind, item = match.groups()
        if kind == "manifests":
            return self._manifest(asked, item)
        if kind == "blobs":
            return self._blob(asked, item)
        return self._upload(asked, name, item)

    def _manifest(self, asked: Asked, item: str) -> None:
        if asked.method == "PUT":
            digest = "sha256:" + hashlib.sha256(asked.body).hexdigest()
            self.manifests[item] = self.manifests[digest] = asked.body
            return asked.answer(201, Docker_Content_Digest=digest)
        if item not in self.manifests:
            return asked.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        data = self.manifests[item]
        media = "application/vnd.oci.image.manifest.v1+json"
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        return asked.answer(200, data, Content_Type=media, Docker_Content_Digest=digest)

    def _blob(self, asked: Asked, digest: str) -> None:
        data = self.blobs.get(digest)
        if data is None:
            return asked.answer(404)
        start = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("Range", ""))
        if start is not None:
            at = int(start[1])
            return asked.answer(206, data[at:], Content_Range=f"bytes {at}-{len(data) - 1}/{len(data)}")
        return asked.answer(200, data)

    def _upload(self, asked: Asked, name: str, session: str) -> None:
        if asked.method == "POST":
            session = f"upload-{len(self.uploads)}"
            self.uploads[session] = b""
            return asked.answer(202, Location=f"/v2/{name}/blobs/uploads/{session}?state=x")
        here = f"/v2/{name}/blobs/uploads/{session}?state=x"
        if asked.method == "GET":
            return asked.answer(204, Location=here, Range=f"0-{len(self.uploads[session]) - 1}")
        self.uploads[session] += asked.body
        if asked.method == "PATCH":
            return asked.answer(202, Location=here, Range=f"0-{len(self.uploads[session]) - 1}")
        data = self.uploads.pop(session)
        if "sha256:" + hashlib.sha256(data).hexdigest() != asked.query.get("digest"):
            return asked.answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        self.blobs[asked.query["digest"]] = data
        return asked.answer(201)


@contextlib.contextmanager
def serve(handle: Callable[[Asked], None], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """An HTTP/1.1 server on a loopback port, in threads; `127.0.0.1:<port>`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                handle(Asked(self, self.command, url.path, query, body))

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _any

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that goes away is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def stub_registry() -> Iterator[StubRegistry]:
    stub = StubRegistry()
    with serve(stub.handle) as host:
        stub.host = host
        yield stub


def make_certificate(directory: Path, *hosts: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key, made by openssl."""
    requires("openssl")
    certificate, key = directory / "ca.pem", directory / "key.pem"
    names = ",".join(f"IP:{host}" if host[0].isdigit() else f"DNS:{host}" for host in hosts)
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=registry",
            "-addext",
            f"subjectAltName={names}",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
