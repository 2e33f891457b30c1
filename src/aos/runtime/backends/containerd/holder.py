"""A program: hold the standard streams of one process that containerd runs, for whoever attaches, and for its log.

containerd's shims copy streams to and from FIFOs and leave it to a client to be at their other ends. The daemon
cannot be that client: it may die. So each process gets one of these; it speaks conmon's attach protocol
(aos.runtime.protocol.Stdio), writes the log as conmon does, and outlives the daemon.

It is started as `python -IS holder.py NAME=VALUE ...`, its descriptors being numbers among the values, and imports C
modules only: it is on the start path, and there is one for each sandbox.

    out, err    the process's output, to be read; without `err` there is a terminal
    in          its standard input, to be written; absent: there is none
    log         where the output is appended in the Kubernetes CRI format
    listen      a listening socket, on which clients attach
    client      a client that is attached already
    control     gets lines: `1 ROWS COLUMNS` resizes the terminal, `2 0 0` opens the log at `log_path` again
    started     at its end once the process runs, which gets its input then; absent: it can be written to already
    leave=1     a client that goes away does not close standard input
    address, namespace, container, exec    whom to ask of containerd
"""

from __future__ import annotations

import _socket
import os
import select
import sys
import time

_PIECE = 1 << 15
_GONE = select.POLLHUP | select.POLLERR
_LATE = 30.0
"""Seconds, about half of those that a shim may take to open the input."""
_SLOW = 0.1
"""Seconds that the end of the input may come late to who reads it slowly."""
_NAMES = {2: b"stdout", 3: b"stderr"}


class Holder:
    def __init__(self, options: dict[str, str]) -> None:
        def number(name: str) -> int:
            return int(options.get(name, -1))

        self.options = options
        self.outputs = {fd: tag for fd, tag in ((number("out"), 2), (number("err"), 3)) if fd != -1}
        self.stdin, self.log = number("in"), number("log")
        self.listen, self.control, self.started = number("listen"), number("control"), number("started")
        self.leave = options.get("leave") == "1"
        self.clients: set[int] = set()
        self.pending = b""
        """What a client sent that the process has not taken yet; no client is listened to meanwhile."""
        self.ending = self.ended = False
        self.fifo = -1
        """Of the input that is at its end, until its reader must have seen that."""
        self.pause = 0.0005
        self.leaving = 0.0
        """When to look next whether it has."""
        self.size: tuple[int, int] | None = None
        self.lines = b""
        self.poll = select.poll()
        self.door: _socket.socket | None = None

    def run(self) -> None:
        for fd in (*self.outputs, self.listen, self.control, self.started):
            if fd != -1:
                self.poll.register(fd, select.POLLIN)
        if "client" in self.options:
            self.accept(int(self.options["client"]))
        if self.listen != -1:
            self.door = _socket.socket(fileno=self.listen)
            self.door.setblocking(False)
        while self.outputs:
            if self.fifo != -1 and time.monotonic() >= self.leaving:
                self.leave_input()
            for fd, events in self.poll.poll(self.patience()):
                if fd in self.outputs:
                    self.output(fd)
                elif fd == self.listen:
                    self.open_door()
                elif fd == self.control:
                    self.command()
                elif fd == self.started:
                    self.begin()
                elif fd == self.stdin:
                    self.feed()
                elif fd in self.clients:
                    self.input(fd, events)
        # Its output has ended, and in most cases so has the process; clients hear of the end when it has.
        self.ask("Wait")

    def output(self, fd: int) -> None:
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return
        if not data:
            self.poll.unregister(fd)
            del self.outputs[fd]
            return
        self.open_door()  # who came before it was written gets it
        tag = self.outputs[fd]
        if self.log != -1:
            self.record(_NAMES[tag], data)
        packet = bytes((tag,)) + data
        for client in [*self.clients]:
            try:
                os.write(client, packet)
            except OSError:
                self.drop(client)

    def record(self, name: bytes, data: bytes) -> None:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        head = b"%s.%09d+00:00 %s " % (stamp.encode(), now % 10**9, name)
        text = b""
        for line in data.split(b"\n")[:-1]:
            text += head + b"F " + line + b"\n"
        if rest := data.rpartition(b"\n")[2]:
            text += head + b"P " + rest + b"\n"
        try:
            while text:
                text = text[os.write(self.log, text) :]
        except OSError:
            pass  # a full disk loses lines of the log, and nothing else

    def open_door(self) -> None:
        while self.door is not None:
            try:
                self.accept(self.door._accept()[0])  # type: ignore[attr-defined]
            except BlockingIOError:
                return

    def accept(self, client: int) -> None:
        self.clients.add(client)
        self.poll.register(client, 0 if self.pending else select.POLLIN)

    def drop(self, client: int) -> None:
        self.clients.discard(client)
        self.poll.unregister(client)
        os.close(client)

    def input(self, client: int, events: int) -> None:
        try:
            data = os.read(client, _PIECE * 4)
        except OSError:
            data = b""
        if data:
            if self.stdin != -1 and not self.ending:
                self.pending += data
                for other in self.clients:
                    self.poll.register(other, 0)
                if self.started == -1:
                    self.poll.register(self.stdin, select.POLLOUT)
            return
        gone = bool(events & _GONE)
        if gone:
            self.drop(client)
        else:  # it sends no more, and goes on to read
            self.poll.register(client, 0)
        if not (gone and self.leave):
            self.ending = True
            self.close_input()

    def feed(self) -> None:
        try:
            self.pending = self.pending[os.write(self.stdin, self.pending) :]
        except BlockingIOError:
            return
        if self.pending:
            return
        self.poll.unregister(self.stdin)
        for client in self.clients:
            self.poll.register(client, select.POLLIN)
        self.close_input()

    def close_input(self) -> None:
        """The shim holds an end of the FIFO, too, and gives it up when it is told. Of a terminal it would hang up."""
        if not self.ending or self.pending or self.ended or self.stdin == -1 or self.started != -1:
            return
        if "err" not in self.options:
            return
        self.ended = True
        self.ask("CloseIO", b"\x18\x01")  # stdin = true
        self.fifo = os.open(f"/proc/self/fd/{self.stdin}", os.O_PATH)

    def patience(self) -> float | None:
        """Milliseconds."""
        return None if self.fifo == -1 else max(0.0, (self.leaving - time.monotonic()) * 1000)

    def leave_input(self) -> None:
        """The shim opens the FIFO to read it when it comes to that, which may be after all this. What nobody has read is
        lost with the last end, so ours stays until it has been; and who opens it then waits for somebody who writes, so we
        come back once for that."""
        self.pause *= 2
        self.leaving = time.monotonic() + self.pause
        if self.stdin != -1:
            unread = select.poll()
            unread.register(self.stdin, select.POLLIN)
            if unread.poll(0):
                self.pause = min(self.pause, _SLOW)
                return
            os.close(self.stdin)
            self.stdin = -1
        try:
            os.close(os.open(f"/proc/self/fd/{self.fifo}", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads: not yet, or not any more
            if self.pause < _LATE:
                return
        os.close(self.fifo)
        self.fifo = -1

    def begin(self) -> None:
        self.poll.unregister(self.started)
        os.close(self.started)
        self.started = -1
        self.resize()
        if self.pending:
            self.poll.register(self.stdin, select.POLLOUT)
        self.close_input()

    def command(self) -> None:
        data = os.read(self.control, 4096)
        if not data:
            self.poll.unregister(self.control)
            return
        *lines, self.lines = (self.lines + data).split(b"\n")
        for line in lines:
            words = line.split()
            if len(words) != 3 or not all(word.isdigit() for word in words):
                continue
            if words[0] == b"1":
                self.size = int(words[1]), int(words[2])
                self.resize()
            elif words[0] == b"2" and self.log != -1:
                again = os.open(self.options["log_path"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                os.dup2(again, self.log)
                os.close(again)

    def resize(self) -> None:
        if self.size is not None and self.started == -1:
            rows, columns = self.size
            self.ask("ResizePty", b"\x18" + _varint(columns) + b"\x20" + _varint(rows))

    def ask(self, method: str, more: bytes = b"") -> None:
        """Call containerd's task service about the process, and wait for the answer, whatever it is."""
        message = _text(0x0A, self.options["container"]) + _text(0x12, self.options.get("exec", "")) + more
        try:
            call(self.options["address"], self.options["namespace"], method, message)
        except OSError:
            pass  # containerd is not there: what it would do, its own restart does or nobody can


def call(address: str, namespace: str, method: str, message: bytes) -> None:
    """One unary gRPC call, and nothing more of HTTP/2 (RFC 9113) than that takes: the client is 9 ms quicker to start,
    and 20 MB smaller, without a library. Returns when the call has ended; OSError when the connection did first."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/containerd.services.tasks.v1.Tasks/" + method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "containerd-namespace": namespace,
    }
    block = b"".join(
        b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in headers.items()
    )  # RFC 7541, section 6.2.2: literals that no table keeps; all are shorter than 127 bytes
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(address)
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(4, 0, 0, b"")
            + _frame(1, 4, 1, block)
            + _frame(0, 1, 1, b"\x00" + len(message).to_bytes(4, "big") + message)
        )
        received = b""
        while True:
            while len(received) < 9 or len(received) < 9 + int.from_bytes(received[:3], "big"):
                piece = connection.recv(1 << 16)
                if not piece:
                    raise ConnectionResetError
                received += piece
            length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
            stream, payload = int.from_bytes(received[5:9], "big"), received[9 : 9 + length]
            received = received[9 + length :]
            if kind in (4, 6) and not flags & 1:  # SETTINGS and PING are to be acknowledged
                connection.sendall(_frame(kind, 1, 0, payload if kind == 6 else b""))
            elif kind == 7 or (stream == 1 and (kind == 3 or flags & 1)):  # GOAWAY, RST_STREAM, END_STREAM
                return
    finally:
        connection.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(tag: int, value: str) -> bytes:
    data = value.encode()
    return bytes((tag,)) + _varint(len(data)) + data if data else b""


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes((number & 127 | 128,))
        number >>= 7
    return out + bytes((number,))


if __name__ == "__main__":
    Holder(dict(word.split("=", 1) for word in sys.argv[1:])).run()
