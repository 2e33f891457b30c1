"""Further processes in a running sandbox, each under a conmon of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from aos import errors
from aos.content.tree import LayerTree
from aos.errors import NotFound, Unavailable
from aos.runtime.backends.supervised.conmon import (
    PIDFILE,
    Conmon,
    connect_stdio,
    decode_exit,
    kill_tree,
    read_exit_file,
)
from aos.runtime.backends.supervised.failures import failure
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.launch import ToolFailed, reap_later, wait_readable
from aos.runtime.backends.supervised.record import Record, remove_tree
from aos.runtime.bundle import exec_config
from aos.runtime.checks import check_process
from aos.runtime.protocol import Exec
from aos.runtime.state import ExitStatus, SandboxState
from aos.runtime.users import resolve_user

if TYPE_CHECKING:
    from aos.ids import SandboxId
    from aos.runtime.backends.supervised.ending import Ends
    from aos.runtime.backends.supervised.host import Host
    from aos.runtime.spec import ProcessSpec

__all__ = ["Execs"]


class _Config(msgspec.Struct):
    """What is read of a configuration."""

    process: dict[str, Any]


_config = msgspec.json.Decoder(_Config).decode


class Execs:
    def __init__(self, host: Host, ends: Ends) -> None:
        self._host = host
        self._ends = ends
        self._waiting: dict[tuple[SandboxId, str], tuple[Conmon, Path, ProcessSpec]] = {}

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        check_process(process)
        conmon_path, state = self._host.tools()[1], self._host.state(id)
        if not state.can_exec():
            raise wrong_state(id, state, "exec")
        if state is SandboxState.CREATED and "prepare" not in self._host.tool.capabilities:
            raise errors.NotImplemented(
                f"the {self._host.tool.backend} backend runs nothing in a sandbox before its entrypoint",
                code="capability-missing",
                hint="do it in the entrypoint, or run the agent with `--runtime oci`",
                backend=self._host.tool.backend,
                capability="prepare",
            )
        directory = self._host.directory(id)
        record = Record.read(directory)
        assert record is not None  # a running sandbox has one
        tree = record.tree()
        user = resolve_user(process.user, tree)
        exec_id = os.urandom(6).hex()
        bundle = directory / "exec" / exec_id
        bundle.mkdir(parents=True, mode=0o700)
        try:
            entrypoint = _config((directory / "config.json").read_bytes()).process
            (bundle / "process.json").write_bytes(msgspec.json.encode(exec_config(process, user, entrypoint)))
            conmon = await Conmon.launch(
                conmon=conmon_path,
                runtime=[
                    *self._host.tool.exec_prefix(process),
                    record.runtime,
                    "--root",
                    str(self._host.states),
                    *record.options,
                ],
                id=id,
                unique=exec_id,
                bundle=bundle,
                process=process,
                log=None,
                leave_stdin_open=False,
                exec_spec=bundle / "process.json",
                enter=None,
                inside=None,
                furnish=None,
            )
        except BaseException:
            remove_tree(bundle)
            raise
        try:
            conmon.release()
            await conmon.attachable(self._host.config.create_seconds)
            stdio = connect_stdio(bundle, process.terminal) if attach else None
        except BaseException as error:
            kill_tree(bundle)
            conmon.kill()
            remove_tree(bundle)
            if isinstance(error, ToolFailed):
                raise failure(str(error), process.args[0], tree) from error
            raise
        self._waiting[id, exec_id] = conmon, bundle, process
        return Exec(exec_id, stdio)

    async def start(self, id: SandboxId, exec_id: str) -> ExitStatus:
        if (id, exec_id) in self._waiting and not (state := self._host.state(id)).can_exec():
            if state is SandboxState.STOPPED:
                self.forget(id)
            raise wrong_state(id, state, "start an exec in")
        try:
            conmon, bundle, process = self._waiting.pop((id, exec_id))
        except KeyError as error:
            raise NotFound(f"no exec {exec_id} is waiting in {id}", code="exec-not-found") from error
        pidfd = os.pidfd_open(conmon.pid)
        try:
            conmon.release()
            try:
                with self._host.quick_moves:
                    await conmon.created(self._host.config.create_seconds)
            except ToolFailed as error:
                if self._host.pid(id) is None:  # what the runtime says then is about what it no longer found
                    return _lost()
                record = Record.read(self._host.sandboxes / id)
                tree = record.tree() if record else LayerTree([])
                raise failure(str(error), process.args[0], tree) from error
            except Unavailable:
                kill_tree(bundle)  # the runtime hangs
                raise
            await self._ended(id, pidfd)
            written = read_exit_file(bundle)
            if written is None:
                return _lost()
            code, signum = decode_exit(written[0])
            return ExitStatus("exited" if signum is None else "signaled", code, signum, written[1])
        except asyncio.CancelledError:
            _kill(bundle, pidfd)
            raise
        finally:
            os.close(pidfd)
            reap_later(conmon.pid)
            # Whoever waits for the exit code does not wait for the disk.
            asyncio.get_running_loop().run_in_executor(None, remove_tree, bundle)

    def forget(self, id: SandboxId) -> None:
        """End those of a sandbox that nobody will start any more."""
        for key in [key for key in self._waiting if key[0] == id]:
            conmon, bundle, _ = self._waiting.pop(key)
            conmon.kill()
            remove_tree(bundle)

    async def _ended(self, id: SandboxId, pidfd: int) -> None:
        """Until the exec's conmon has ended; when the sandbox ends first, half a second more and no longer."""
        record = Record.read(self._host.sandboxes / id)
        ended = asyncio.create_task(wait_readable(pidfd, None, "the exec"))
        waits = {ended, *([self._ends.watch(id, record)] if record else [])}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait([ended], timeout=0.5)
            if not ended.done():
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await ended
        finally:
            ended.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ended


def _lost() -> ExitStatus:
    return ExitStatus("lost", finished_at=time.time(), detail="the sandbox ended under it")


def _kill(bundle: Path, conmon: int) -> None:
    """End an exec that nobody waits for any more: its process with its descendants, and its conmon (a pidfd)."""
    with contextlib.suppress(OSError, ValueError):
        _kill_tree(int((bundle / PIDFILE).read_text()))
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(conmon, signal.SIGKILL)


def _kill_tree(pid: int) -> None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(OSError):
            _kill_tree(int(child))
