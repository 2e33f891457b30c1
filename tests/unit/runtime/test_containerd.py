"""The containerd backend, where no sandbox is needed: who cannot be reached, what is parsed, how a holder writes."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aos.errors import AosError, NotImplemented
from aos.oci.digest import Digest
from aos.oci.layer import Layer
from aos.runtime.backends.containerd import holder
from aos.runtime.backends.containerd.connection import Connection, probe
from aos.runtime.backends.containerd.handlers import handler, resources
from aos.runtime.backends.containerd.layers import chain_id
from aos.runtime.backends.containerd.mounts import directories
from aos.runtime.backends.containerd.settings import ContainerdConfig
from aos.runtime.backends.containerd.usage import usage_of
from aos.runtime.spec import AgentSpec, Confinement, Limits, NetworkSpec, ProcessSpec, Rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator


def config(address: Path) -> ContainerdConfig:
    return ContainerdConfig(Path("/nonexistent"), Path("/nonexistent"), "aos-test", str(address))


def refusal(address: Path) -> AosError:
    async def ask() -> None:
        await Connection(config(address)).version()

    with pytest.raises(AosError) as refused:
        asyncio.run(ask())
    return refused.value


# Who cannot be reached.


def test_without_containerd_it_is_said_what_to_install_and_what_to_set(tmp_path: Path) -> None:
    error = refusal(tmp_path / "containerd.sock")
    assert (error.kind, error.code) == ("FailedPrecondition", "runtime-missing")
    assert str(tmp_path / "containerd.sock") in error.message
    assert "apt-get install containerd" in str(error.hint) and "[containerd] address" in str(error.hint)


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    error = refusal(tmp_path / "s")
    assert (error.kind, error.code) == ("Unavailable", "containerd-unavailable")
    assert "systemctl start containerd" in str(error.hint)


@pytest.mark.root
def test_a_socket_without_permission(tmp_path: Path) -> None:
    place = tmp_path / "s"
    for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        place.chmod(0o600)
        found: list[AosError | None] = []

        def as_nobody() -> None:  # of this thread alone: setresuid(2) of the kernel, not the C library's
            import ctypes

            ctypes.CDLL(None, use_errno=True).syscall(117, -1, 65534, -1)
            found.append(probe(str(place)))

        thread = threading.Thread(target=as_nobody)
        thread.start()
        thread.join()
    [error] = found
    assert error is not None
    assert (error.kind, error.code) == ("PermissionDenied", "containerd-refused")


@contextmanager
def a_containerd_of_version(version: str, place: Path) -> Iterator[None]:
    """Something that answers the one question for the version, as containerd would."""
    import grpc

    from aos.runtime.backends.containerd._api.services import version_pb2, version_pb2_grpc

    class Service(version_pb2_grpc.VersionServicer):
        def Version(self, request: Any, context: Any) -> Any:
            return version_pb2.VersionResponse(version=version)

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        version_pb2_grpc.add_VersionServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(f"unix:{place}")
        server.start()
        try:
            yield
        finally:
            server.stop(0).wait()


def test_an_old_version_is_refused_and_named(tmp_path: Path) -> None:
    with a_containerd_of_version("1.5.18", tmp_path / "s"):
        error = refusal(tmp_path / "s")
    assert error.code == "containerd-version"
    assert "1.5.18" in error.message and "1.6" in error.message


@pytest.mark.parametrize("version", ["1.6.20~ds1", "v2.4.2", "2.10.0-rc.0", "unknown"])
def test_other_versions_are_taken(tmp_path: Path, version: str) -> None:
    with a_containerd_of_version(version, tmp_path / "s"):
        assert asyncio.run(Connection(config(tmp_path / "s")).version()) == version


def test_one_that_is_slow_to_answer_is_waited_for(tmp_path: Path) -> None:
    """As on a host with more work than it can do: it accepts at once, and says its first word half a second later."""

    def pass_on(connection: socket.socket) -> None:
        with connection, socket.socket(socket.AF_UNIX) as real:
            time.sleep(0.5)
            real.connect(str(tmp_path / "real"))
            there = {connection: real, real: connection}
            while True:
                for one in select.select([*there], [], [])[0]:
                    try:
                        data = one.recv(65536)
                        there[one].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return

    def accept() -> None:
        while True:
            try:
                connection, _ = slow.accept()
            except OSError:
                return
            passing.append(threading.Thread(target=pass_on, args=[connection]))
            passing[-1].start()

    passing: list[threading.Thread] = []
    with a_containerd_of_version("2.4.2", tmp_path / "real"), socket.socket(socket.AF_UNIX) as slow:
        slow.bind(str(tmp_path / "s"))
        slow.listen()
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            assert asyncio.run(Connection(config(tmp_path / "s")).version()) == "2.4.2"
        finally:
            slow.shutdown(socket.SHUT_RDWR)
            accepting.join()
    for thread in passing:
        thread.join()


def test_without_the_extra_it_is_said_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        error = refusal(tmp_path / "s")
    assert error.code == "containerd-client-missing"
    assert "openos-aos[containerd]" in str(error.hint)


def test_grpc_is_imported_by_nobody_who_does_not_connect() -> None:
    code = (
        "import sys, aos.compose.runtimes, aos.runtime.backends.containerd as c, asyncio, pathlib;"
        "from aos.config import Config; from aos.content.store import ContentStore;"
        "root = pathlib.Path(sys.argv[1]);"
        "f = aos.compose.runtimes.runtime(Config(root, root), ContentStore(root / 'content'));"
        "assert asyncio.run(f.list()) == [];"
        "assert not {'grpc', 'google.protobuf'} & set(sys.modules)"
    )
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        subprocess.run([sys.executable, "-c", code, root], check=True)


# What is read, and what is asked for.


def layer(diff_id: str) -> Layer:
    return Layer(Digest("sha256:" + "0" * 64), Digest(diff_id), 1, "application/x")


def test_chain_ids_are_those_of_the_image_specification() -> None:
    import hashlib

    first, second = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert chain_id([layer(first)]) == first
    expected = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_id([layer(first), layer(second)]) == expected


def test_limits_as_resources() -> None:
    assert resources(Limits(), swap=True) == {}
    assert resources(Limits(memory=1 << 20, cpus=0.5, pids=7), swap=True) == {
        "memory": {"limit": 1 << 20, "swap": 1 << 20},
        "cpu": {"period": 100_000, "quota": 50_000},
        "pids": {"limit": 7},
    }
    assert resources(Limits(memory=5), swap=False) == {"memory": {"limit": 5}}


def test_metrics_of_both_versions_of_cgroups_and_of_none() -> None:
    from google.protobuf.any_pb2 import Any as Packed

    from aos.runtime.backends.containerd._api.types import cgroup1_pb2, cgroup2_pb2

    v1 = cgroup1_pb2.Metrics(
        cpu={"usage": {"total": 2_500_000_000}},
        memory={"usage": {"usage": 10, "max": 20}},
        pids={"current": 3},
        blkio={"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 6}]},
    )
    usage = usage_of(Packed(type_url="io.containerd.cgroups.v1.Metrics", value=v1.SerializeToString()))
    assert (usage.cpu_seconds, usage.memory_bytes, usage.memory_peak_bytes, usage.pids) == (2.5, 10, 20, 3)
    assert (usage.read_bytes, usage.written_bytes) == (5, 6)
    v2 = cgroup2_pb2.Metrics(cpu={"usage_usec": 1_500_000}, memory={"usage": 10}, pids={"current": 3})
    usage = usage_of(Packed(type_url="io.containerd.cgroups.v2.Metrics", value=v2.SerializeToString()))
    assert (usage.cpu_seconds, usage.memory_bytes, usage.memory_peak_bytes, usage.pids) == (1.5, 10, None, 3)
    assert usage.read_bytes is None
    assert usage_of(Packed(type_url="something.Else")).cpu_seconds is None


def test_directories_of_a_snapshot() -> None:
    from aos.runtime.backends.containerd._api.types.mount_pb2 import Mount

    bind = Mount(type="bind", source="/s/1/fs", options=["ro", "rbind"])
    assert directories([bind]) == (Path("/s/1/fs"),)
    overlay = Mount(type="overlay", options=["index=off", "upperdir=/u", "workdir=/w", "lowerdir=/l2:/l1"])
    assert directories([overlay]) == (Path("/l1"), Path("/l2"), Path("/u"))
    assert directories([Mount(type="ext4", source="/dev/dm-0")]) is None
    assert directories([bind, overlay]) is None


@pytest.mark.parametrize(
    ("name", "backend", "isolation", "on_host"),
    [
        ("io.containerd.runc.v2", "containerd", "namespaces", True),
        ("io.containerd.runsc.v1", "containerd", "kernel", False),
        ("io.containerd.kata-qemu.v2", "containerd", "vm", False),
    ],
)
def test_handlers(name: str, backend: str, isolation: str, on_host: bool) -> None:
    found = handler(name)
    assert (found.backend, found.name, found.isolation, found.on_host) == (backend, name, isolation, on_host)
    assert ("prepare" in found.capabilities) is on_host


@pytest.mark.parametrize("name", ["io.containerd.runsc.v1", "io.containerd.kata.v2"])
@pytest.mark.parametrize(
    "more",
    [
        {"network": NetworkSpec("host")},
        {"network": NetworkSpec("bridge")},
        {"network": NetworkSpec("agent", sandbox="x")},
        {"confinement": Confinement(users="private")},
        {"confinement": Confinement(devices=("vendor.com/class=name",))},
    ],
)
def test_what_it_does_not_have_names_who_has(name: str, more: dict[str, Any]) -> None:
    spec = AgentSpec(**{"process": ProcessSpec(("x",)), "rootfs": Rootfs(()), **more})
    with pytest.raises(NotImplemented) as refused:
        handler(name).check(spec)
    assert refused.value.code == "capability-missing"
    assert "--runtime oci" in str(refused.value.hint)


# A holder.


def test_lines_of_the_log(tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    held = holder.Holder({"log": str(log)})
    held.record(b"stdout", b"one\n\ntwo")
    held.record(b"stderr", b"\xff\n")
    os.close(log)
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert [line.split(b" ", 1)[1] for line in lines[:-1]] == [
        b"stdout F one",
        b"stdout F ",
        b"stdout P two",
        b"stderr F \xff",
    ]
    from datetime import datetime

    stamp = lines[0].split(b" ", 1)[0].decode()
    assert abs(datetime.fromisoformat(stamp).timestamp() - (tmp_path / "log").stat().st_mtime) < 60


def test_a_call_without_a_library_is_a_call(tmp_path: Path) -> None:
    """The holder's few frames of HTTP/2, against gRPC's own server."""
    import grpc

    from aos.runtime.backends.containerd._api.services import tasks_pb2, tasks_pb2_grpc

    asked: list[Any] = []

    class Tasks(tasks_pb2_grpc.TasksServicer):
        def ResizePty(self, request: Any, context: Any) -> Any:
            from google.protobuf.empty_pb2 import Empty

            asked.append((request, dict(context.invocation_metadata())))
            return Empty()

        def CloseIO(self, request: Any, context: Any) -> Any:
            asked.append((request, {}))
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        tasks_pb2_grpc.add_TasksServicer_to_server(Tasks(), server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(f"unix:{tmp_path / 's'}")
        server.start()
        try:
            options = {"address": str(tmp_path / "s"), "namespace": "n", "container": "c" * 200, "exec": "e"}
            held = holder.Holder(options)
            held.size = (33, 300)
            held.resize()
            held.ask("CloseIO", b"\x18\x01")  # a refusal ends it, too
            held.ask("Wait")  # and what the server does not have
        finally:
            server.stop(0).wait()
    (resize, metadata), (close, _) = asked
    assert (resize.container_id, resize.exec_id) == ("c" * 200, "e")
    assert (resize.width, resize.height) == (300, 33)
    assert metadata["containerd-namespace"] == "n"
    assert isinstance(close, tasks_pb2.CloseIORequest) and close.stdin
    held.ask("Wait")  # nobody is there any more


@pytest.mark.parametrize("data", [b"here\n", b""])
def test_who_opens_the_input_late_gets_it_and_its_end(tmp_path: Path, data: bytes) -> None:
    """A shim opens it in the background, and may come to that when the client has sent all and the call is over."""
    os.mkfifo(tmp_path / "stdin")
    out, writing = os.pipe()
    err, complaining = os.pipe()
    given = os.open(tmp_path / "stdin", os.O_RDWR | os.O_NONBLOCK)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    numbers = {"out": out, "err": err, "in": given, "client": theirs.detach()}
    options = {"address": str(tmp_path / "nobody"), "namespace": "n", "container": "c"}
    held = holder.Holder(options | {name: str(number) for name, number in numbers.items()})
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(held.run)
        with ours:
            if data:
                ours.send(data)
            ours.shutdown(socket.SHUT_WR)
            while not held.ended:
                time.sleep(0.001)
            time.sleep(0.02)
            reading = threads.submit((tmp_path / "stdin").read_bytes)
            try:
                assert reading.result(10) == data
            finally:
                if not reading.done():
                    os.close(os.open(tmp_path / "stdin", os.O_WRONLY | os.O_NONBLOCK))
                os.close(writing)
                os.close(complaining)
                running.result(10)
    for number in (out, err):
        os.close(number)
