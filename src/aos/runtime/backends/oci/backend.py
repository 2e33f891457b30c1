"""The `oci` backend: what each call of the Runtime protocol does with conmon and an OCI runtime.

Everything it knows is on disk (record.py, the runtime's state directory, cgroups) or in /proc; the object only
remembers descriptors of conmons that it watches. So any number of instances, one after the other or at once, see
the same sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Never

import msgspec

from aos import errors
from aos.content.protocol import IdMap
from aos.content.tree import LayerTree
from aos.errors import (
    AlreadyExists,
    AosError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
)
from aos.ids import SandboxId
from aos.runtime.backends.oci.conmon import (
    LOG,
    PIDFILE,
    Conmon,
    ConmonFailed,
    connect,
    decode_exit,
    open_control,
    read_exit_file,
)
from aos.runtime.backends.oci.failures import failure
from aos.runtime.backends.oci.launch import Overlay, reap, run_tool, tool_environment, wait_readable
from aos.runtime.backends.oci.record import Record, process_start, read_status, write_status
from aos.runtime.bundle import CAPABILITIES, process_config, runtime_config
from aos.runtime.cgroups import detect_cgroups, kill_all
from aos.runtime.protocol import Exec, RuntimeInfo, Stdio
from aos.runtime.seccomp import load_seccomp
from aos.runtime.state import ExitStatus, Sandbox, SandboxState, Usage
from aos.runtime.users import resolve_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from aos.content.store import ContentStore
    from aos.runtime.cgroups import Cgroups
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec

__all__ = ["OciConfig", "OciRuntime"]

_TOOL_SECONDS = 30.0
"""How long a call of the OCI runtime may take before it counts as hung."""
_KILL_SECONDS = 10.0
"""How long a killed sandbox may take to be gone."""
_OPEN_FILES = 1_048_576
_ENROLL_SECONDS = 0.2
"""How long after its creation conmon joins its sandbox's cgroup. Moving a process waits for a grace period of the
kernel in each hierarchy, 12 ms in all on version 1, and holds up every fork meanwhile: not on the start path."""


@dataclass(frozen=True, slots=True)
class OciConfig:
    root: Path
    """Sandboxes live in `root/sandboxes`: persistent, so that an exit code survives a reboot."""
    state: Path
    """The runtime's own state: `state/runtime`."""
    cgroup_parent: str
    runtime: str = ""
    conmon: str = "conmon"
    seccomp: str = ""


class OciRuntime:
    """One sandbox is one conmon, one OCI runtime container, one cgroup, one directory."""

    def __init__(self, config: OciConfig, content: ContentStore) -> None:
        self._config = config
        self._content = content
        self._sandboxes = config.root / "sandboxes"
        self._states = config.state / "runtime"
        self._ends: dict[SandboxId, asyncio.Task[ExitStatus]] = {}
        self._execs: dict[str, tuple[Conmon, Path, ProcessSpec]] = {}
        self._cgroups_found: Cgroups | None = None
        self._tools: tuple[str, str] | None = None
        self._seccomp: msgspec.Raw | None = None
        self._resolv = Path("/etc/resolv.conf")

    # What the host offers, found on first use.

    @property
    def _cgroups(self) -> Cgroups:
        if self._cgroups_found is None:
            self._cgroups_found = detect_cgroups()
        return self._cgroups_found

    def _find_tools(self) -> tuple[str, str]:
        """(OCI runtime, conmon); FailedPrecondition `runtime-missing` names the package."""
        if self._tools is None:
            runtimes = (self._config.runtime,) if self._config.runtime else ("runc", "crun")
            runtime = next(filter(None, map(shutil.which, runtimes)), None)
            conmon = shutil.which(self._config.conmon)
            for found, name in ((runtime, runtimes[0]), (conmon, self._config.conmon)):
                if found is None:
                    raise FailedPrecondition(
                        f"{name} is not installed",
                        code="runtime-missing",
                        hint=f"install it: `apt-get install {Path(name).name}`, `dnf install {Path(name).name}`; "
                        "`aos doctor` checks the rest",
                        tool=name,
                    )
            assert runtime is not None and conmon is not None
            self._tools = runtime, conmon
        return self._tools

    def _seccomp_profile(self) -> msgspec.Raw:
        if self._seccomp is None:
            profile = load_seccomp(self._config.seccomp, CAPABILITIES)
            self._seccomp = msgspec.Raw(msgspec.json.encode(profile))
        return self._seccomp

    async def info(self) -> RuntimeInfo:
        runtime, conmon = self._find_tools()
        versions = {}
        for tool in (runtime, conmon):
            process = await asyncio.create_subprocess_exec(tool, "--version", stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            versions[tool] = output.decode(errors="replace").partition("\n")[0].strip()
        return RuntimeInfo(
            "oci",
            versions[runtime],
            frozenset({"attach", "exec", "limits", "logs", "pause", "stats", "terminal", "update"}),
            {
                "runtime": runtime,
                "conmon": f"{conmon} ({versions[conmon]})",
                "cgroups": self._cgroups.version,
            },
        )

    # Making and starting.

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        if os.geteuid() != 0:
            raise FailedPrecondition(
                "making sandboxes needs root for now",
                code="needs-root",
                hint="run the command with sudo",
            )
        tools, directory = self._find_tools(), self._sandboxes / id
        seccomp = self._seccomp_profile()
        _check(spec)
        layers = await self._lowers(spec)
        try:
            directory.mkdir(parents=True, mode=0o700)
        except FileExistsError as error:
            raise AlreadyExists(
                f"sandbox {id} exists", code="sandbox-exists", hint="delete it first", sandbox=id
            ) from error
        group = self._group(id)
        conmon: Conmon | None = None
        try:
            upper = self._prepare(directory, spec, layers, seccomp)
            self._cgroups.create(group, spec.limits)
            work = directory / "work" if spec.rootfs.upper is None else upper.with_name(upper.name + ".work")
            work.mkdir(exist_ok=True)
            conmon = await Conmon.launch(
                conmon=tools[1],
                runtime=tools[0],
                runtime_root=self._states,
                id=id,
                unique=id,
                bundle=directory,
                process=spec.process,
                leave_stdin_open=spec.leave_stdin_open,
                exec_spec=None,
                overlay=Overlay(self._content.snapshots.directory, layers, upper, work, directory / "rootfs"),
            )
            record = Record(
                conmon.pid,
                process_start(conmon.pid) or "",
                spec.process.terminal,
                tuple(map(str, layers)),
                str(upper),
            )
            record.write(directory)
            pid = await conmon.created()
        except BaseException as error:
            await self._give_up(id, conmon)
            if isinstance(error, ConmonFailed):
                raise failure(str(error), spec.process, LayerTree(layers)) from error
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                from aos.content.blobs import storage_error

                raise storage_error(error, directory) from error
            raise
        self._watch(id, record)
        return Sandbox(id, SandboxState.CREATED, pid)

    async def _lowers(self, spec: AgentSpec) -> tuple[Path, ...]:
        """Unpacked layers. One that is there costs two look-ups, so that only a missing one needs a thread."""
        ensure = self._content.snapshots.ensure
        return await asyncio.to_thread(ensure, spec.rootfs.layers, IdMap.identity())

    def _prepare(
        self, directory: Path, spec: AgentSpec, layers: tuple[Path, ...], seccomp: msgspec.Raw
    ) -> Path:
        upper = spec.rootfs.upper or directory / "upper"
        if spec.rootfs.upper is None:
            upper.mkdir()
            _take_on(upper, layers[-1])
        (directory / "rootfs").mkdir()
        user = resolve_user(spec.process.user, LayerTree([*layers, upper]))
        hosts = directory / "hosts"
        hosts.write_text(f"127.0.0.1\tlocalhost {spec.hostname}\n::1\tlocalhost\n")
        files = {"/etc/hosts": str(hosts)}
        targets = {mount.target for mount in spec.mounts}
        if spec.network == "host":
            files = {"/etc/hosts": "/etc/hosts", "/etc/resolv.conf": "/etc/resolv.conf"}
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        config = runtime_config(
            spec,
            user=user,
            rootfs=str(directory / "rootfs"),
            cgroup=f"/{self._group(id=SandboxId(directory.name))}/payload",
            files={to: source for to, source in files.items() if to not in targets and Path(source).exists()},
            seccomp=seccomp,
            open_files=_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES),
        )
        (directory / "config.json").write_bytes(msgspec.json.encode(config))
        return upper

    async def start(self, id: SandboxId) -> None:
        state = self._state(id)
        if not state.can_start():
            raise _wrong_state(id, state, "start")
        record = Record.read(self._sandboxes / id)
        assert record is not None  # a created sandbox has one
        if Path(self._find_tools()[0]).name == "runc":
            return await self._release(id, record)
        code, said = await self._tool("start", id)
        if code != 0:
            raise failure(said, None, LayerTree([Path(layer) for layer in record.layers]))

    async def _release(self, id: SandboxId, record: Record) -> None:
        """What `runc start` does, without its 6 ms: the container's init blocks until somebody reads its FIFO, and
        the FIFO's absence says that it runs (libcontainer/container_linux.go, `exec` and `handleFifoResult`)."""
        fifo = self._states / id / "exec.fifo"
        descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            written = asyncio.create_task(wait_readable(descriptor, _TOOL_SECONDS, "runc init"))
            try:
                await asyncio.wait({written, self._watch(id, record)}, return_when=asyncio.FIRST_COMPLETED)
                if not written.done():
                    raise failure("the sandbox ended before it was started", None, LayerTree([]))
                await written
            finally:
                written.cancel()
                with contextlib.suppress(asyncio.CancelledError, AosError):
                    await written
            fifo.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    # How it ends.

    async def wait(self, id: SandboxId) -> ExitStatus:
        directory = self._directory(id)
        if (status := read_status(directory)) is not None:
            return status
        record = Record.read(directory)
        if record is None:
            return ExitStatus("lost", detail="its creation was interrupted")
        return await asyncio.shield(self._watch(id, record))

    def _watch(self, id: SandboxId, record: Record) -> asyncio.Task[ExitStatus]:
        task = self._ends.get(id)
        if task is None:
            task = self._ends[id] = asyncio.create_task(self._collect(id, record), name=f"end of {id}")
        return task

    async def _collect(self, id: SandboxId, record: Record) -> ExitStatus:
        """Wait for conmon's end, then put together and keep how the sandbox ended."""
        directory, group = self._sandboxes / id, self._group(id)
        loop = asyncio.get_running_loop()
        enrolling = loop.call_later(_ENROLL_SECONDS, loop.run_in_executor, None, self._enroll, group, record)
        try:
            await _until_gone(record)
        finally:
            enrolling.cancel()
        if (status := read_status(directory)) is not None:
            return status
        written = read_exit_file(directory)
        if written is None:
            # Nobody holds the streams and the exit code any more; what still runs cannot be accounted for.
            with contextlib.suppress(AosError):
                await self._kill_payload(id)
            status = ExitStatus(
                "lost",
                finished_at=time.time(),
                usage=self._cgroups.usage(group),
                detail="conmon, which held its exit code, was killed",
            )
        else:
            code, signum = decode_exit(written[0])
            usage = self._cgroups.usage(group)
            oom = signum == signal.SIGKILL and self._cgroups.oom_kills(group) > 0
            status = ExitStatus(
                "oom" if oom else "exited" if signum is None else "signaled",
                code,
                signum,
                written[1],
                replace(usage, memory_bytes=None, pids=None),
                "killed by the kernel for want of memory" if oom else "",
            )
        with contextlib.suppress(FileNotFoundError):
            write_status(directory, status)
        return status

    def _enroll(self, group: str, record: Record) -> None:
        """Put conmon into the sandbox's cgroup; see _ENROLL_SECONDS."""
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if record.conmon_lives():
                self._cgroups.add(group, record.conmon)

    async def signal(self, id: SandboxId, signum: signal.Signals, *, everyone: bool = False) -> None:
        state = self._state(id)
        if not state.can_signal():
            return
        if everyone:
            for pid in self._cgroups.pids(self._group(id)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            return
        if state is SandboxState.CREATED:
            if signum == signal.SIGKILL:
                await self._kill_payload(id)
            return
        init = self._pid(id)
        if init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signum)
        if state is SandboxState.PAUSED and signum == signal.SIGKILL:
            await self.resume(id)

    async def pause(self, id: SandboxId) -> None:
        await self._change(id, "pause", SandboxState.can_pause)

    async def resume(self, id: SandboxId) -> None:
        await self._change(id, "resume", SandboxState.can_resume)

    async def update(self, id: SandboxId, limits: Limits) -> None:
        state = self._state(id)
        if not state.can_update():
            raise _wrong_state(id, state, "update")
        try:
            self._cgroups.limit(self._group(id), limits)
        except OSError as error:
            raise InvalidArgument(
                f"the kernel refuses these limits: {error.strerror}",
                code="limit-refused",
                hint="a memory limit cannot be below what is in use",
                sandbox=id,
            ) from error

    # Further processes, streams, logs.

    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        tools, state = self._find_tools(), self._state(id)
        if not state.can_exec():
            raise _wrong_state(id, state, "exec")
        directory = self._directory(id)
        record = Record.read(directory)
        assert record is not None  # a running sandbox has one
        tree = LayerTree([*map(Path, record.layers), Path(record.upper)])
        user = resolve_user(process.user, tree)
        exec_id = os.urandom(6).hex()
        bundle = directory / "exec" / exec_id
        bundle.mkdir(parents=True, mode=0o700)
        try:
            (bundle / "process.json").write_bytes(msgspec.json.encode(process_config(process, user)))
            conmon = await Conmon.launch(
                conmon=tools[1],
                runtime=tools[0],
                runtime_root=self._states,
                id=id,
                unique=exec_id,
                bundle=bundle,
                process=process,
                leave_stdin_open=False,
                exec_spec=bundle / "process.json",
                overlay=None,
            )
        except BaseException:
            _remove_tree(bundle)
            raise
        try:
            await conmon.attachable()
            stdio = self._stdio(bundle, process.terminal) if attach else None
        except BaseException as error:
            conmon.kill()
            _remove_tree(bundle)
            if isinstance(error, ConmonFailed):
                raise failure(str(error), process, tree) from error
            raise
        self._execs[exec_id] = conmon, bundle, process
        return Exec(exec_id, stdio)

    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        try:
            conmon, bundle, process = self._execs.pop(exec_id)
        except KeyError as error:
            raise NotFound(f"no exec {exec_id} is waiting in {id}", code="exec-not-found") from error
        pidfd = os.pidfd_open(conmon.pid)
        try:
            conmon.release()
            try:
                await conmon.created()
            except ConmonFailed as error:
                record = Record.read(self._sandboxes / id)
                layers = [*map(Path, record.layers), Path(record.upper)] if record else []
                raise failure(str(error), process, LayerTree(layers)) from error
            await self._exec_ended(id, pidfd)
            written = read_exit_file(bundle)
            if written is None:
                return ExitStatus("lost", finished_at=time.time(), detail="the sandbox ended under it")
            code, signum = decode_exit(written[0])
            return ExitStatus("exited" if signum is None else "signaled", code, signum, written[1])
        finally:
            os.close(pidfd)
            reap(conmon.pid)
            _remove_tree(bundle)

    async def _exec_ended(self, id: SandboxId, pidfd: int) -> None:
        """Until the exec's conmon has ended; when the sandbox ends first, half a second more and no longer."""
        record = Record.read(self._sandboxes / id)
        ended = asyncio.create_task(wait_readable(pidfd, None, "the exec"))
        waits = {ended, *([self._watch(id, record)] if record else [])}
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

    async def attach(self, id: SandboxId) -> Stdio:
        directory = self._directory(id)
        record = Record.read(directory)
        state = self._state(id)
        if record is None or state is SandboxState.STOPPED:
            raise _wrong_state(id, state, "attach")
        return self._stdio(directory, record.terminal)

    def _stdio(self, bundle: Path, terminal: bool) -> Stdio:
        connection = connect(bundle)
        if not terminal:
            return Stdio(connection)
        try:
            return Stdio(connection, open_control(bundle))
        except BaseException:
            os.close(connection)
            raise

    async def logs(self, id: SandboxId) -> Path:
        return self._directory(id) / LOG

    async def stats(self, id: SandboxId) -> Usage:
        status = read_status(self._directory(id))
        return status.usage if status is not None else self._cgroups.usage(self._group(id))

    async def checkpoint(self, id: SandboxId, image: Path, *, leave_running: bool = False) -> None:
        _lacks("checkpoint")

    async def restore(self, id: SandboxId, spec: AgentSpec, image: Path) -> Sandbox:
        _lacks("restore")

    # The end of all traces.

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        directory = self._sandboxes / id
        if not directory.exists():
            return
        state = self._state(id)
        if not force and not state.can_delete():
            raise _wrong_state(id, state, "delete", hint="stop it first, or force the deletion")
        record = Record.read(directory)
        if state is SandboxState.CREATING:
            await self._end_half_made(id)
        elif state is not SandboxState.STOPPED:
            await self._kill_payload(id)
        if record is not None:
            try:
                async with asyncio.timeout(_KILL_SECONDS):
                    await asyncio.shield(self._watch(id, record))
            except TimeoutError as error:
                raise Internal(
                    f"sandbox {id} did not end within {_KILL_SECONDS:g} s of SIGKILL",
                    code="sandbox-stuck",
                    hint="a process in uninterruptible sleep keeps it; delete it again later",
                    sandbox=id,
                ) from error
        await self._remove_group(id)
        # Renamed first: a directory that is there is a sandbox, whole or half-made, and never a half-removed one.
        doomed = directory.with_name(f".{id}")
        shutil.rmtree(self._states / id, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            directory.rename(doomed)
        self._ends.pop(id, None)
        await asyncio.to_thread(_remove_tree, doomed)

    async def _give_up(self, id: SandboxId, conmon: Conmon | None) -> None:
        """Creation failed: remove every trace, whatever else happens meanwhile."""
        if conmon is not None:
            conmon.close()
        cleaning = asyncio.create_task(self._delete_quietly(id))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(cleaning)
        if not cleaning.done():
            await asyncio.wait([cleaning])

    async def _delete_quietly(self, id: SandboxId) -> None:
        """The failure that led here is what the caller must hear of; what stays is found by `list`."""
        with contextlib.suppress(AosError, OSError):
            await self.delete(id, force=True)

    async def _kill_payload(self, id: SandboxId) -> None:
        group = self._group(id)
        pid = self._pid(id)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # the init of a pid namespace takes all with it
        kill_all(self._cgroups, group)
        if self._frozen(id):
            await self._tool("resume", id)

    async def _end_half_made(self, id: SandboxId) -> None:
        """No record: a conmon may run that nobody knows. Its command line names the directory."""
        directory = os.fsencode(self._sandboxes / id)
        for entry in Path("/proc").iterdir():  # noqa: ASYNC240 - memory, not a disk
            if entry.name.isdecimal():
                with contextlib.suppress(OSError, ValueError):
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"conmon" in argv[0] and argv[argv.index(b"-b") + 1] == directory:
                        os.kill(int(entry.name), signal.SIGKILL)
        await self._kill_payload(id)
        await self._tool("delete", id, "--force")

    async def _remove_group(self, id: SandboxId) -> None:
        """A group stays busy for a moment after its last process has ended."""
        group = self._group(id)
        for attempt in range(60):
            if self._cgroups.remove(group):
                self._cgroups.remove_empty(self._config.cgroup_parent)
                return
            kill_all(self._cgroups, group)
            await asyncio.sleep(0.001 * 1.2**attempt if attempt < 30 else 0.2)
        raise Internal(
            f"the cgroup of sandbox {id} does not become empty",
            code="sandbox-stuck",
            hint="a process in uninterruptible sleep keeps it; delete it again later",
            sandbox=id,
        )

    # What there is.

    async def list(self) -> list[Sandbox]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for directory in sorted(self._sandboxes.iterdir()):
                id = SandboxId(directory.name)
                if directory.name.startswith("."):
                    await asyncio.to_thread(_remove_tree, directory)  # a deletion that was interrupted
                    continue
                state = self._state(id)
                status = read_status(directory)
                if state is SandboxState.STOPPED and status is None:
                    status = await self.wait(id)
                found.append(Sandbox(id, state, None if status else self._pid(id), status))
        return found

    def _state(self, id: SandboxId) -> SandboxState:
        directory = self._directory(id)
        if read_status(directory) is not None:
            return SandboxState.STOPPED
        record = Record.read(directory)
        if record is None:
            return SandboxState.CREATING
        if not record.conmon_lives():
            return SandboxState.STOPPED
        if self._pid(id) is None:
            # Its process has ended when there was one; conmon stays for the moment that the exit code takes.
            return SandboxState.RUNNING if (directory / PIDFILE).exists() else SandboxState.CREATING
        if (self._states / id / "exec.fifo").exists():
            return SandboxState.CREATED
        return SandboxState.PAUSED if self._frozen(id) else SandboxState.RUNNING

    def _frozen(self, id: SandboxId) -> bool:
        return self._cgroups.frozen(self._group(id))

    def _pid(self, id: SandboxId) -> int | None:
        try:
            pid = int((self._sandboxes / id / PIDFILE).read_text())
        except (OSError, ValueError):
            return None
        return pid if process_start(pid) is not None else None

    def _directory(self, id: SandboxId) -> Path:
        directory = self._sandboxes / id
        if not directory.is_dir():
            raise NotFound(
                f"no sandbox {id}", code="sandbox-not-found", hint="list what there is", sandbox=id
            )
        return directory

    def _group(self, id: SandboxId) -> str:
        return f"{self._config.cgroup_parent}/{id}"

    async def _change(self, id: SandboxId, verb: str, allowed: Callable[[SandboxState], bool]) -> None:
        state = self._state(id)
        if not allowed(state):
            raise _wrong_state(id, state, verb)
        code, said = await self._tool(verb, id)
        if code != 0:
            raise failure(said, None, LayerTree([]))

    async def _tool(self, verb: str, id: SandboxId, *options: str) -> tuple[int, str]:
        argv = [self._find_tools()[0], "--root", str(self._states), verb, *options, id]
        env = tool_environment()
        return await run_tool(argv, env, seconds=_TOOL_SECONDS)


async def _until_gone(record: Record) -> None:
    try:
        pidfd = os.pidfd_open(record.conmon)
    except ProcessLookupError:
        reap(record.conmon)
        return
    try:
        if record.conmon_lives():
            await wait_readable(pidfd, None, "conmon")
    finally:
        os.close(pidfd)
    reap(record.conmon)


def _check(spec: AgentSpec) -> None:
    """What the kernel would refuse with less to say."""
    if not spec.process.args:
        raise InvalidArgument(
            "there is no command to run",
            code="spec-invalid",
            hint="give the package an entrypoint, or name a command",
        )
    if not spec.process.cwd.startswith("/"):
        raise InvalidArgument(
            f"the working directory {spec.process.cwd!r} is not absolute", code="spec-invalid"
        )
    if not spec.rootfs.layers:
        raise InvalidArgument("the root file system has no layer", code="spec-invalid")
    for mount in spec.mounts:
        if (
            not mount.target.startswith("/")
            or ".." in mount.target.split("/")
            or mount.target.rstrip("/") == ""
        ):
            raise InvalidArgument(f"{mount.target!r} is not a place to mount at", code="spec-invalid")
        if mount.kind == "bind" and not (
            mount.source and mount.source.is_absolute() and mount.source.exists()
        ):
            raise InvalidArgument(
                f"{mount.source} does not exist, or is not absolute",
                code="mount-source-missing",
                hint="make it first; AOS makes no directories on the host",
                source=str(mount.source),
            )


def _take_on(directory: Path, like: Path) -> None:
    """The upper directory's own mode and owner are those of the sandbox's root directory."""
    status = like.stat()
    os.chown(directory, status.st_uid, status.st_gid)
    directory.chmod(status.st_mode & 0o7777)


def _wrong_state(
    id: SandboxId, state: SandboxState, verb: str, hint: str | None = None
) -> FailedPrecondition:
    return FailedPrecondition(
        f"cannot {verb} sandbox {id}: it is {state.value}", code="sandbox-state", hint=hint, sandbox=id
    )


def _lacks(capability: str) -> Never:
    raise errors.NotImplemented(
        f"the oci backend cannot {capability} processes",
        code="capability-missing",
        hint="the gvisor backend will; without it an agent restarts from its entrypoint",
        backend="oci",
        capability=capability,
    )


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
