"""Files of indexes, fetched from a server that is slow to answer, wants a password, or has nothing."""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from aos.build.host.download import download
from aos.build.host.pip import PipSettings
from aos.build.steps.pip_lock import _rank
from aos.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    failures: ClassVar[list[int]] = []
    wanted: ClassVar[str] = ""

    def do_GET(self) -> None:
        status = self.failures.pop() if self.failures else 200
        if self.wanted and self.headers.get("Authorization") != self.wanted:
            status = 401
        if self.path == "/gone":
            status = 404
        body = b"content" if status == 200 else b"no"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Handler.failures, _Handler.wanted = [], ""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_files_come_from_servers_and_from_the_host(server: str, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("local")
    _Handler.failures = [503, 500]
    files = [(f"{server}/a", tmp_path / "a"), (str(tmp_path / "here"), tmp_path / "b")]
    download(files, PipSettings())
    assert (tmp_path / "a").read_text() == "content"
    assert (tmp_path / "b").read_text() == "local"


def test_the_credentials_of_an_index_are_sent_to_its_host(server: str, tmp_path: Path) -> None:
    _Handler.wanted = "Basic " + base64.b64encode(b"me:secret").decode()
    url = server.replace("http://", "http://me:secret@") + "/simple"
    download([(f"{server}/a", tmp_path / "a")], PipSettings(indexes=[{"url": url}]))
    settings = PipSettings(
        indexes=[{"url": server, "name": "corp-x"}],
        environment={"UV_INDEX_CORP_X_USERNAME": "me", "UV_INDEX_CORP_X_PASSWORD": "secret"},
    )
    download([(f"{server}/a", tmp_path / "b")], settings)
    with pytest.raises(Unavailable, match="401"):
        download([(f"{server}/a", tmp_path / "c")], PipSettings())


@pytest.mark.parametrize(("path", "told"), [("/gone", "404"), ("", "127.0.0.1/x")])
def test_what_cannot_be_had_is_told_without_a_password(
    server: str, tmp_path: Path, path: str, told: str
) -> None:
    url = server.replace("http://", "http://me:secret@") + path if path else "http://127.0.0.1:1/x"
    with pytest.raises(Unavailable, match=told) as caught:
        download([(url, tmp_path / "a")], PipSettings())
    assert caught.value.code == "download-failed"
    assert "secret" not in caught.value.message


def test_the_wheel_closest_to_the_target_is_taken() -> None:
    wheels = [
        "x-1-py3-none-any.whl",
        "x-1-py3-none-manylinux_2_17_x86_64.whl",
        "x-1-cp37-abi3-manylinux_2_17_x86_64.whl",
        "x-1-cp39-abi3-manylinux_2_17_x86_64.whl",
        "x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "x-1-cp311-cp311-manylinux_2_28_x86_64.whl",
    ]
    assert [_rank(wheel) for wheel in wheels] == sorted({_rank(wheel) for wheel in wheels})
