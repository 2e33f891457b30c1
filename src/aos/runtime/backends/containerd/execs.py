"""Further processes in a running sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from aos.errors import AosError, NotFound
from aos.runtime.backends.containerd.finish import finished
from aos.runtime.backends.containerd.handlers import lacks
from aos.runtime.backends.containerd.record import CONFIG
from aos.runtime.backends.containerd.streams import Streams, hold, until_gone
from aos.runtime.backends.supervised.conmon import decode_exit
from aos.runtime.backends.supervised.failures import failure
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.record import process_start, remove_tree
from aos.runtime.bundle import exec_config
from aos.runtime.checks import check_process
from aos.runtime.protocol import Exec, Stdio
from aos.runtime.state import ExitStatus, SandboxState
from aos.runtime.users import resolve_user

if TYPE_CHECKING:
    from pathlib import Path

    from aos.ids import SandboxId
    from aos.runtime.backends.containerd.ending import Ends
    from aos.runtime.backends.containerd.host import Host
    from aos.runtime.spec import ProcessSpec

__all__ = ["Execs"]

_PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
_GRACE_SECONDS = 0.5
"""How long an exec's end may come after that of its sandbox."""


@dataclass(slots=True)
class _Waiting:
    process: ProcessSpec
    directory: Path
    stdio: Stdio | None = None
    """Its client's, until `exec` has returned it."""
    holder: int = 0
    started: int = -1
    """Closed when the exec runs: its holder waits for that."""

    def begin(self) -> None:
        if self.started != -1:
            os.close(self.started)
            self.started = -1


class Execs:
    def __init__(self, host: Host, ends: Ends) -> None:
        self._host = host
        self._ends = ends
        self._waiting: dict[tuple[SandboxId, str], _Waiting] = {}
        self._reaping: set[asyncio.Task[None]] = set()

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        from google.protobuf.any_pb2 import Any as Packed

        from aos.runtime.backends.containerd._api.services import tasks_pb2

        check_process(process)
        state = await self._host.state(id)
        if not state.can_exec():
            raise wrong_state(id, state, "exec")
        handler = self._host.handler
        if state is SandboxState.CREATED and "prepare" not in handler.capabilities:
            hint = "run it once the sandbox runs, or use `--runtime oci`"
            raise lacks(handler.backend, "run a command before the entrypoint", hint)
        user = resolve_user(process.user, self._host.tree(id))
        exec_id = os.urandom(6).hex()
        directory = self._host.sandboxes / id / "exec" / exec_id
        directory.mkdir(parents=True, mode=0o700)
        waiting = _Waiting(process, directory)
        try:
            streams = Streams("", "", "")
            if attach:
                streams = Streams.make(directory, process)
                await finished(self._hold(id, exec_id, streams, waiting), f"holder of {exec_id}")
            entrypoint = msgspec.json.decode((self._host.sandboxes / id / CONFIG).read_bytes())["process"]
            config = msgspec.json.encode(exec_config(process, user, entrypoint))
            request = tasks_pb2.ExecProcessRequest(
                container_id=id,
                exec_id=exec_id,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                terminal=process.terminal,
                spec=Packed(type_url=_PROCESS, value=config),
            )
            await self._host.tasks("Exec", request)
        except BaseException as error:
            self._end(waiting)
            if waiting.stdio is not None:
                _close(waiting.stdio)
            if isinstance(error, NotFound) or (
                isinstance(error, AosError) and error.code == "runtime-failed"
            ):
                raise wrong_state(id, await self._host.state(id), "exec") from error
            raise
        self._waiting[id, exec_id] = waiting
        return Exec(exec_id, waiting.stdio)

    async def _hold(self, id: SandboxId, exec_id: str, streams: Streams, waiting: _Waiting) -> None:
        """Start its holder, with a client that is attached from the beginning."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        started, waiting.started = os.pipe()
        control: tuple[int, int] | None = os.pipe() if waiting.process.terminal else None
        try:
            waiting.holder = await hold(
                self._host.config,
                id,
                streams,
                waiting.directory,
                exec_id=exec_id,
                client=theirs.fileno(),
                started=started,
                control=control[0] if control else None,
            )
        except BaseException:
            ours.close()
            if control:
                os.close(control[1])
            raise
        finally:
            theirs.close()
            os.close(started)
            if control:
                os.close(control[0])
        waiting.stdio = Stdio(ours.detach(), control[1] if control else None)

    async def start(self, id: SandboxId, exec_id: str) -> ExitStatus:
        if (id, exec_id) in self._waiting and (await self._host.state(id)) is SandboxState.PAUSED:
            raise wrong_state(id, SandboxState.PAUSED, "start an exec in")
        try:
            waiting = self._waiting.pop((id, exec_id))
        except KeyError as error:
            raise NotFound(f"no exec {exec_id} is waiting in {id}", code="exec-not-found") from error
        runs = False
        try:
            status = await self._run(id, exec_id, waiting)
            runs = True
            return status
        finally:
            self._end(waiting, kill=waiting.started != -1)
            await finished(self._forget(id, exec_id, kill=not runs), f"end of exec {exec_id}")

    async def _run(self, id: SandboxId, exec_id: str, waiting: _Waiting) -> ExitStatus:
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        ended = self._ends.watch(id)
        try:
            with self._host.quick_moves:
                await self._host.tasks("Start", tasks_pb2.StartRequest(container_id=id, exec_id=exec_id))
        except AosError as error:
            if isinstance(error, NotFound) or await self._gone(id):
                return _lost()  # what is said then is about what was missing
            raise failure(error.message, waiting.process.args[0], self._host.tree(id)) from error
        waiting.begin()
        return await self._ended(id, exec_id, ended)

    async def _gone(self, id: SandboxId) -> bool:
        try:
            return await self._host.state(id) is SandboxState.STOPPED
        except NotFound:
            return True

    async def _forget(self, id: SandboxId, exec_id: str, *, kill: bool) -> None:
        """`kill`: whoever wanted it has gone, or it did not start."""
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        with contextlib.suppress(AosError, TimeoutError):
            if kill:
                await self._host.kill(id, signal.SIGKILL, exec_id=exec_id)
                request = tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)
                async with asyncio.timeout(_GRACE_SECONDS):
                    await self._host.tasks("Wait", request, seconds=None)
            delete = tasks_pb2.DeleteProcessRequest(container_id=id, exec_id=exec_id)
            await self._host.tasks("DeleteProcess", delete)

    async def _ended(self, id: SandboxId, exec_id: str, sandbox: asyncio.Task[ExitStatus]) -> ExitStatus:
        """How it ended; when the sandbox ends first, half a second more and no longer."""
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        request = tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)
        answer = asyncio.create_task(self._host.tasks("Wait", request, seconds=None))
        try:
            await asyncio.wait({answer, sandbox}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await asyncio.wait([answer], timeout=_GRACE_SECONDS)
            if not answer.done():
                return _lost()
            try:
                response: tasks_pb2.WaitResponse = answer.result()
            except AosError:
                return _lost()
        finally:
            answer.cancel()
        code, signum = decode_exit(response.exit_status)
        at = response.exited_at.ToNanoseconds() / 1e9
        return ExitStatus("exited" if signum is None else "signaled", code, signum, at)

    def _end(self, waiting: _Waiting, *, kill: bool = True) -> None:
        """The directory goes, which nobody opens anything in any more; the holder goes when its client has everything."""
        waiting.begin()
        if waiting.holder:
            start = process_start(waiting.holder)
            if kill and start is not None:
                os.kill(waiting.holder, signal.SIGKILL)
            self._reap(waiting.holder, start or "")
        remove_tree(waiting.directory)
        with contextlib.suppress(OSError):
            waiting.directory.parent.rmdir()  # no other exec is under way

    def _reap(self, pid: int, start: str) -> None:
        task = asyncio.create_task(until_gone(pid, start), name=f"holder {pid}")
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)


def _lost() -> ExitStatus:
    return ExitStatus("lost", finished_at=time.time(), detail="the sandbox ended under it")


def _close(stdio: Stdio) -> None:
    for fd in (stdio.socket, stdio.control):
        if fd is not None:
            os.close(fd)
