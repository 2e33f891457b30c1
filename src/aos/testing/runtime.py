"""What every runtime backend must do, as tests.

    from aos.testing.runtime import Kit, RuntimeConformance

    class TestMyBackend(RuntimeConformance):
        @pytest.fixture
        def kit(self) -> Kit: ...

A kit makes instances of the backend over one and the same host, and says how this suite's few programs are run
there. Needs pytest; nothing else of AOS does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from aos.errors import AlreadyExists, AosError, FailedPrecondition, InvalidArgument, NotFound, NotImplemented
from aos.ids import SandboxId
from aos.runtime.spec import AgentSpec, Limits, Mount, ProcessSpec, Rootfs
from aos.runtime.state import SandboxState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from aos.oci.layer import Layer
    from aos.runtime.protocol import Runtime, Stdio
    from aos.runtime.state import ExitStatus

__all__ = ["Kit", "Run", "RuntimeConformance", "case", "collect"]

_SECONDS = 30


class Kit(Protocol):
    layers: tuple[Layer, ...]
    """Of the root file system that the programs are in."""

    def make(self) -> Runtime:
        """An instance; all of them see the same sandboxes."""
        ...

    def command(self, program: str, *args: str) -> tuple[str, ...]:
        """The command line of a program of this suite:

        `exit CODE`; `print OUT ERR`: a line to each stream; `cat`: input to output until its end; `sleep`: for
        ever; `env NAME`: that variable; `hostname`; `missing`: one that does not exist; and for backends that checkpoint
        processes `count`: 1, 2, 3 and so on, a line each, every few hundredths of a second."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """How a command went."""

    status: ExitStatus
    out: bytes
    err: bytes


def case(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test, with a time limit: nothing here may hang."""

    @functools.wraps(test)
    def run(self: RuntimeConformance, kit: Kit, **more: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(_SECONDS):
                await test(self, kit, **more)

        asyncio.run(limited())

    return run


async def collect(stdio: Stdio, input: bytes | None = None) -> tuple[bytes, bytes]:
    """Send input and its end (None: neither), then read both streams to theirs."""
    if stdio.control is not None:
        os.close(stdio.control)
    loop = asyncio.get_running_loop()
    streams = {2: bytearray(), 3: bytearray()}
    with socket.socket(fileno=stdio.socket) as connection:
        connection.setblocking(False)
        if input is not None:
            await loop.sock_sendall(connection, input)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while packet := await loop.sock_recv(connection, 1 << 16):
                streams[packet[0]] += packet[1:]
    return bytes(streams[2]), bytes(streams[3])


class RuntimeConformance:
    """The cases that every backend passes; real isolation has more (`tests/conformance`)."""

    def spec(self, kit: Kit, program: str, *args: str, **process: Any) -> AgentSpec:
        return AgentSpec(ProcessSpec(kit.command(program, *args), **process), Rootfs(kit.layers))

    def id(self) -> SandboxId:
        return SandboxId(f"case-{os.urandom(4).hex()}")

    @contextlib.asynccontextmanager
    async def created(self, runtime: Runtime, spec: AgentSpec) -> Any:
        id = self.id()
        await runtime.create(id, spec)
        try:
            yield id
        finally:
            await runtime.delete(id, force=True)

    @contextlib.asynccontextmanager
    async def running(self, runtime: Runtime, spec: AgentSpec) -> Any:
        async with self.created(runtime, spec) as id:
            await runtime.start(id)
            yield id

    async def run(self, runtime: Runtime, spec: AgentSpec, input: bytes | None = None) -> Run:
        async with self.created(runtime, spec) as id:
            stdio = await runtime.attach(id)
            await runtime.start(id)
            out, err = await collect(stdio, input)
            return Run(await runtime.wait(id), out, err)

    async def execute(
        self, runtime: Runtime, id: SandboxId, process: ProcessSpec, input: bytes | None = None
    ) -> Run:
        made = await runtime.exec(id, process, attach=True)
        assert made.stdio is not None
        status, (out, err) = await asyncio.gather(runtime.start_exec(id, made.id), collect(made.stdio, input))
        return Run(status, out, err)

    async def state(self, runtime: Runtime, id: SandboxId) -> SandboxState:
        return {sandbox.id: sandbox.state for sandbox in await runtime.list()}[id]

    # What it is.

    @case
    async def test_info_names_the_backend_and_its_capabilities(self, kit: Kit) -> None:
        info = await kit.make().info()
        assert info.name and info.version
        assert {"attach", "exec", "logs"} <= info.capabilities

    # The life of a sandbox.

    @case
    async def test_lifecycle_passes_through_its_states(self, kit: Kit) -> None:
        runtime, id = kit.make(), self.id()
        made = await runtime.create(id, self.spec(kit, "sleep"))
        assert (made.id, made.state) == (id, SandboxState.CREATED)
        assert made.pid is not None
        assert await self.state(runtime, id) is SandboxState.CREATED
        await runtime.start(id)
        assert await self.state(runtime, id) is SandboxState.RUNNING
        await runtime.signal(id, signal.SIGKILL)
        await runtime.wait(id)
        assert await self.state(runtime, id) is SandboxState.STOPPED
        await runtime.delete(id)
        assert id not in [sandbox.id for sandbox in await runtime.list()]

    @pytest.mark.parametrize("code", [0, 1, 7, 127, 255])
    def test_exit_code_is_the_process_own(self, kit: Kit, code: int) -> None:
        async def go() -> None:
            status = (await self.run(kit.make(), self.spec(kit, "exit", str(code)))).status
            if code == 255 and status.signal is not None:  # 128 + 127 names no signal
                raise AssertionError(status)
            assert (status.cause, status.code, status.signal) == ("exited", code, None)
            assert status.finished_at is not None

        asyncio.run(go())

    @case
    async def test_kill_is_told_from_an_exit(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.signal(id, signal.SIGKILL)
            status = await runtime.wait(id)
        assert (status.cause, status.code, status.signal) == ("signaled", None, signal.SIGKILL)
        assert status.shell_code == 137

    @case
    async def test_wait_answers_everybody_and_again_afterwards(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "exit", "3")) as id:
            early = [asyncio.create_task(runtime.wait(id)) for _ in range(3)]
            await asyncio.sleep(0)
            await runtime.start(id)
            answers = [*await asyncio.gather(*early), await runtime.wait(id)]
        assert {answer.code for answer in answers} == {3}

    @case
    async def test_cancelled_wait_changes_nothing(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await runtime.wait(id)
            assert await self.state(runtime, id) is SandboxState.RUNNING
            await runtime.signal(id, signal.SIGKILL)
            assert (await runtime.wait(id)).signal == signal.SIGKILL

    @case
    async def test_create_refuses_an_id_in_use(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(AlreadyExists) as refused:
                await runtime.create(id, self.spec(kit, "sleep"))
            assert refused.value.code == "sandbox-exists"
            assert await self.state(runtime, id) is SandboxState.CREATED

    @case
    async def test_start_is_for_created_sandboxes(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.start(id)
            assert refused.value.code == "sandbox-state"

    @case
    async def test_delete_refuses_what_runs_unless_forced(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.delete(id)
            assert refused.value.code == "sandbox-state"
            await runtime.delete(id, force=True)
            assert id not in [sandbox.id for sandbox in await runtime.list()]

    @case
    async def test_delete_of_nothing_has_no_effect(self, kit: Kit) -> None:
        await kit.make().delete(self.id())
        await kit.make().delete(self.id(), force=True)

    @case
    async def test_delete_of_a_created_sandbox_needs_no_force(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "sleep")) as id:
            await runtime.delete(id)
            assert await runtime.list() == []

    @case
    async def test_two_deletes_at_once_are_one(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await asyncio.gather(runtime.delete(id, force=True), runtime.delete(id, force=True))
        assert await runtime.list() == []

    @case
    async def test_many_at_once(self, kit: Kit) -> None:
        runtime = kit.make()
        runs = [self.run(runtime, self.spec(kit, "exit", str(code))) for code in range(6)]
        assert [run.status.code for run in await asyncio.gather(*runs)] == list(range(6))
        assert await runtime.list() == []

    @pytest.mark.parametrize(
        "call", ["start", "wait", "signal", "pause", "resume", "update", "attach", "logs", "stats", "exec"]
    )
    def test_unknown_sandbox(self, kit: Kit, call: str) -> None:
        async def go() -> None:
            runtime, id = kit.make(), self.id()
            calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
                "signal": lambda: runtime.signal(id, signal.SIGTERM),
                "update": lambda: runtime.update(id, Limits()),
                "exec": lambda: runtime.exec(id, ProcessSpec(("x",)), attach=False),
            }
            ask: Callable[[], Coroutine[Any, Any, object]] = calls.get(call) or (
                lambda: getattr(runtime, call)(id)
            )
            with pytest.raises(NotFound) as refused:
                await ask()
            assert refused.value.code == "sandbox-not-found"

        asyncio.run(go())

    @case
    async def test_signal_to_a_stopped_sandbox_has_no_effect(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "exit", "4")) as id:
            await runtime.wait(id)
            await runtime.signal(id, signal.SIGTERM)
            await runtime.signal(id, signal.SIGKILL, everyone=True)
            assert (await runtime.wait(id)).code == 4

    # What is wrong with a specification.

    @case
    async def test_unknown_command_is_127(self, kit: Kit) -> None:
        runtime = kit.make()
        with pytest.raises(FailedPrecondition) as refused:
            async with self.running(runtime, self.spec(kit, "missing")):
                pass
        assert refused.value.code == "entrypoint-not-found"
        assert refused.value.subject["exit_status"] == 127
        assert await runtime.list() == []

    @case
    async def test_no_command(self, kit: Kit) -> None:
        runtime = kit.make()
        with pytest.raises(InvalidArgument) as refused:
            await runtime.create(self.id(), AgentSpec(ProcessSpec(()), Rootfs(kit.layers)))
        assert refused.value.code == "spec-invalid"
        assert await runtime.list() == []

    @case
    async def test_unknown_user(self, kit: Kit) -> None:
        runtime = kit.make()
        with pytest.raises(InvalidArgument) as refused:
            await runtime.create(self.id(), self.spec(kit, "sleep", user="nobody-of-this-name"))
        assert refused.value.code == "user-unknown"
        assert await runtime.list() == []

    def test_missing_mount_source(self, kit: Kit, tmp_path: Path) -> None:
        async def go() -> None:
            runtime = kit.make()
            spec = replace(self.spec(kit, "sleep"), mounts=(Mount("bind", "/x", tmp_path / "nothing"),))
            with pytest.raises(InvalidArgument) as refused:
                await runtime.create(self.id(), spec)
            assert refused.value.code == "mount-source-missing"
            assert await runtime.list() == []

        asyncio.run(go())

    @case
    async def test_what_a_backend_lacks_names_an_alternative(self, kit: Kit) -> None:
        runtime = kit.make()
        lacking = {"checkpoint", "restore"} - (await runtime.info()).capabilities
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            log = await runtime.logs(id)
            for call in lacking:
                with pytest.raises(NotImplemented) as refused:
                    if call == "checkpoint":
                        await runtime.checkpoint(id, log.with_name("image"))
                    else:
                        await runtime.restore(self.id(), self.spec(kit, "sleep"), log.with_name("image"))
                assert refused.value.code == "capability-missing"
                assert refused.value.hint

    # Streams and logs.

    @case
    async def test_attached_before_start_misses_nothing(self, kit: Kit) -> None:
        run = await self.run(kit.make(), self.spec(kit, "print", "to out", "to err"))
        assert (run.out, run.err) == (b"to out\n", b"to err\n")

    @case
    async def test_input_and_its_end_reach_the_process(self, kit: Kit) -> None:
        text = b"".join(b"line %d\n" % number for number in range(200))
        run = await self.run(kit.make(), self.spec(kit, "cat", stdin=True), text)
        assert run.out == text
        assert run.status.code == 0

    @case
    async def test_without_stdin_the_input_is_empty(self, kit: Kit) -> None:
        run = await self.run(kit.make(), self.spec(kit, "cat"))
        assert (run.out, run.status.code) == (b"", 0)

    @case
    async def test_attach_to_a_stopped_sandbox(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "exit", "0")) as id:
            await runtime.wait(id)
            with pytest.raises(AosError):
                await runtime.attach(id)

    @case
    async def test_log_has_both_streams_in_cri_format(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "print", "one", "two")) as id:
            await runtime.wait(id)
            lines = (await runtime.logs(id)).read_text().splitlines()
        parsed = [line.split(" ", 3) for line in lines]
        assert sorted(fields[1:] for fields in parsed) == [["stderr", "F", "two"], ["stdout", "F", "one"]]
        assert all("T" in fields[0] and len(fields[0]) >= 20 for fields in parsed)

    @case
    async def test_a_log_that_was_given_is_appended_to_and_kept(self, kit: Kit, tmp_path: Path) -> None:
        runtime, log = kit.make(), tmp_path / "log"
        for word in ("first", "second"):
            async with self.running(runtime, replace(self.spec(kit, "print", word, ""), log=log)) as id:
                await runtime.wait(id)
                assert await runtime.logs(id) == log
        texts = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
        assert [text for text in texts if text] == ["first", "second"]

    @case
    async def test_environment_and_host_name(self, kit: Kit) -> None:
        runtime = kit.make()
        run = await self.run(runtime, self.spec(kit, "env", "GREETING", env=(("GREETING", "hello ü"),)))
        assert run.out.decode() == "hello ü\n"
        named = replace(self.spec(kit, "hostname"), hostname="somebody")
        assert (await self.run(runtime, named)).out == b"somebody\n"

    # Further processes.

    @case
    async def test_exec_has_its_own_streams_and_code(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            run = await self.execute(runtime, id, ProcessSpec(kit.command("print", "a", "b")))
            assert (run.status.code, run.out, run.err) == (0, b"a\n", b"b\n")
            run = await self.execute(runtime, id, ProcessSpec(kit.command("exit", "9")))
            assert (run.status.cause, run.status.code) == ("exited", 9)
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @case
    async def test_exec_reads_its_input_to_the_end(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            run = await self.execute(runtime, id, ProcessSpec(kit.command("cat"), stdin=True), b"in\n")
        assert run.out == b"in\n"

    @case
    async def test_exec_of_an_unknown_command_is_127(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(FailedPrecondition) as refused:
                await self.execute(runtime, id, ProcessSpec(kit.command("missing")))
            assert refused.value.subject["exit_status"] == 127
            assert (await self.execute(runtime, id, ProcessSpec(kit.command("exit", "2")))).status.code == 2

    @case
    async def test_exec_before_the_entrypoint_runs(self, kit: Kit) -> None:
        """What prepares a sandbox (`preStart` hooks) runs in it before it starts."""
        runtime = kit.make()
        if "prepare" not in (await runtime.info()).capabilities:
            async with self.created(runtime, self.spec(kit, "print", "late", "")) as id:
                with pytest.raises(NotImplemented) as refused:
                    await runtime.exec(id, ProcessSpec(kit.command("exit", "0")), attach=False)
                assert refused.value.code == "capability-missing"
            return
        async with self.created(runtime, self.spec(kit, "print", "late", "")) as id:
            run = await self.execute(runtime, id, ProcessSpec(kit.command("print", "early", "")))
            assert (run.status.code, run.out) == (0, b"early\n")
            assert await self.state(runtime, id) is SandboxState.CREATED
            await runtime.start(id)
            assert (await runtime.wait(id)).code == 0

    @case
    async def test_an_exec_that_is_cut_off_ends(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, ProcessSpec(kit.command("sleep")), attach=True)
            assert made.stdio is not None
            with socket.socket(fileno=made.stdio.socket) as stream:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await runtime.start_exec(id, made.id)
                stream.settimeout(5)
                while await asyncio.to_thread(stream.recv, 8193):
                    pass  # the end of its streams: nothing of it holds them any more
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @case
    async def test_exec_needs_a_sandbox_that_has_not_ended(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "exit", "0")) as id:
            await runtime.wait(id)
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.exec(id, ProcessSpec(kit.command("exit", "0")), attach=False)
            assert refused.value.code == "sandbox-state"

    @case
    async def test_unknown_exec(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(NotFound) as refused:
                await runtime.start_exec(id, "no-such-exec")
            assert refused.value.code == "exec-not-found"

    @case
    async def test_exec_is_answered_when_the_sandbox_dies_under_it(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, ProcessSpec(kit.command("sleep")), attach=False)
            waiting = asyncio.create_task(runtime.start_exec(id, made.id))
            await asyncio.sleep(0.3)
            await runtime.signal(id, signal.SIGKILL)
            await runtime.wait(id)
            async with asyncio.timeout(1):
                status = await waiting
        assert status.code != 0

    # Pausing, limits, accounts.

    @case
    async def test_pause_and_resume(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.pause(id)
            assert await self.state(runtime, id) is SandboxState.PAUSED
            with pytest.raises(FailedPrecondition):
                await runtime.pause(id)
            await runtime.resume(id)
            assert await self.state(runtime, id) is SandboxState.RUNNING
            with pytest.raises(FailedPrecondition):
                await runtime.resume(id)

    @case
    async def test_a_paused_sandbox_can_be_killed_and_deleted(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.pause(id)
            await runtime.signal(id, signal.SIGKILL)
            assert (await runtime.wait(id)).signal == signal.SIGKILL
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.pause(id)
            await runtime.delete(id, force=True)
        assert await runtime.list() == []

    @case
    async def test_update_and_stats(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            await runtime.update(id, Limits(memory=64 << 20, cpus=0.5))
            if "update-pids" in (await runtime.info()).capabilities:
                await runtime.update(id, Limits(pids=32))
            else:
                with pytest.raises(NotImplemented) as refused:
                    await runtime.update(id, Limits(pids=32))
                assert refused.value.code == "capability-missing" and refused.value.hint
            usage = await runtime.stats(id)
            assert usage.cpu_seconds is not None
            assert usage.memory_peak_bytes is not None

    # Another instance, as after a restart.

    @case
    async def test_another_instance_sees_and_waits(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "sleep")) as id:
            second = kit.make()
            assert await self.state(second, id) is SandboxState.RUNNING
            waiting = asyncio.create_task(second.wait(id))
            await asyncio.sleep(0)
            await second.signal(id, signal.SIGKILL)
            assert (await waiting).signal == signal.SIGKILL
            assert (await first.wait(id)).signal == signal.SIGKILL

    @case
    async def test_another_instance_knows_an_exit_that_it_did_not_see(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "exit", "42")) as id:
            await first.wait(id)
            second = kit.make()
            [found] = [sandbox for sandbox in await second.list() if sandbox.id == id]
            assert found.state is SandboxState.STOPPED
            assert found.exit is not None and found.exit.code == 42
            assert (await second.wait(id)).code == 42

    @case
    async def test_another_instance_deletes(self, kit: Kit) -> None:
        first = kit.make()
        async with self.running(first, self.spec(kit, "sleep")) as id:
            await kit.make().delete(id, force=True)
            assert await first.list() == []

    # Checkpoints of processes, for backends that have them.

    async def checkpoints(self, runtime: Runtime) -> None:
        if not {"checkpoint", "restore"} <= (await runtime.info()).capabilities:
            pytest.skip("the backend has no checkpoints of processes")

    async def counted(self, runtime: Runtime, id: SandboxId, beyond: int = 0) -> list[int]:
        """The numbers that `count` has written, once there is one beyond."""
        while True:
            lines = (await runtime.logs(id)).read_text().splitlines()
            numbers = [int(line.split(" ", 3)[3]) for line in lines if line.split(" ", 3)[2] == "F"]
            if numbers and numbers[-1] > beyond:
                return numbers
            await asyncio.sleep(0.02)

    def test_restored_processes_go_on_where_they_were(self, kit: Kit, tmp_path: Path) -> None:
        """One image, three sandboxes at once, while the one it was made of goes on."""

        async def restored(runtime: Runtime, spec: AgentSpec) -> list[int]:
            id = self.id()
            made = await runtime.restore(id, spec, tmp_path / "image")
            try:
                assert made.state is SandboxState.CREATED
                await runtime.start(id)
                assert await self.state(runtime, id) is SandboxState.RUNNING
                numbers = await self.counted(runtime, id)
                await runtime.signal(id, signal.SIGKILL)
                assert (await runtime.wait(id)).signal == signal.SIGKILL
                return numbers
            finally:
                await runtime.delete(id, force=True)

        async def go() -> None:
            runtime = kit.make()
            await self.checkpoints(runtime)
            spec = self.spec(kit, "count")
            async with self.running(runtime, spec) as id:
                before = (await self.counted(runtime, id, 5))[-1]
                await runtime.checkpoint(id, tmp_path / "image", leave_running=True)
                at_most = (await self.counted(runtime, id, before + 1))[-1]
                found = await asyncio.gather(*(restored(runtime, spec) for _ in range(3)))
                for numbers in found:
                    assert before < numbers[0] <= at_most + 1
                    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                assert (await self.counted(runtime, id, at_most))[0] == 1

        asyncio.run(asyncio.wait_for(go(), _SECONDS))

    def test_a_checkpoint_ends_the_sandbox_unless_it_is_left_running(self, kit: Kit, tmp_path: Path) -> None:
        async def go() -> None:
            runtime = kit.make()
            await self.checkpoints(runtime)
            async with self.running(runtime, self.spec(kit, "count")) as id:
                await self.counted(runtime, id)
                await runtime.checkpoint(id, tmp_path / "image")
                await runtime.wait(id)
                assert await self.state(runtime, id) is SandboxState.STOPPED
                with pytest.raises(FailedPrecondition) as refused:
                    await runtime.checkpoint(id, tmp_path / "again")
                assert refused.value.code == "sandbox-state"

        asyncio.run(asyncio.wait_for(go(), _SECONDS))

    def test_a_paused_sandbox_stays_paused_when_it_is_checkpointed(self, kit: Kit, tmp_path: Path) -> None:
        async def go() -> None:
            runtime = kit.make()
            await self.checkpoints(runtime)
            async with self.running(runtime, self.spec(kit, "count")) as id:
                await self.counted(runtime, id)
                await runtime.pause(id)
                await runtime.checkpoint(id, tmp_path / "image", leave_running=True)
                assert await self.state(runtime, id) is SandboxState.PAUSED
                last = (await self.counted(runtime, id))[-1]
                await runtime.resume(id)
                assert (await self.counted(runtime, id, last))[-1] > last

        asyncio.run(asyncio.wait_for(go(), _SECONDS))

    def test_what_is_no_image_is_refused(self, kit: Kit, tmp_path: Path) -> None:
        async def go() -> None:
            runtime = kit.make()
            await self.checkpoints(runtime)
            (tmp_path / "damaged").mkdir()
            (tmp_path / "damaged/checkpoint.img").write_bytes(b"nothing of use")
            for image in (tmp_path / "missing", tmp_path / "damaged"):
                id = self.id()
                try:
                    with pytest.raises(AosError) as refused:
                        await runtime.restore(id, self.spec(kit, "count"), image)
                        await runtime.start(id)
                finally:
                    await runtime.delete(id, force=True)
                assert refused.value.code == "checkpoint-invalid", refused.value
            assert await runtime.list() == []

        asyncio.run(asyncio.wait_for(go(), _SECONDS))
