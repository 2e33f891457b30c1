"""Further processes in a sandbox: their streams, their codes, their surroundings."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from typing import TYPE_CHECKING

import pytest

from aos.errors import FailedPrecondition, InvalidArgument, NotFound
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


class Execs(Cases):
    @case
    async def test_exec_has_its_own_streams(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            run = await self.execute(runtime, id, self.process(kit, "print", "a", "b"))
            assert (run.status.code, run.out, run.err) == (0, b"a\n", b"b\n")
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @case
    async def test_exec_has_its_own_code(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            for code in (0, 1, 9, 126, 255):
                made = await runtime.exec(id, self.process(kit, "exit", str(code)), attach=False)
                assert made.stdio is None
                status = await runtime.start_exec(id, made.id)
                assert (status.cause, status.code, status.signal) == ("exited", code, None)

    @pytest.mark.parametrize("name", ["TERM", "KILL"])
    @case
    async def test_exec_that_dies_of_a_signal(self, kit: Kit, name: str) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            status = (await self.execute(runtime, id, self.process(kit, "die", name))).status
            assert (status.cause, status.code) == ("signaled", None)
            assert status.signal == signal.Signals[f"SIG{name}"]
            assert await self.state(runtime, id) is SandboxState.RUNNING

    @case
    async def test_exec_reads_its_input_to_the_end(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            run = await self.execute(runtime, id, self.process(kit, "cat", stdin=True), b"in\n")
        assert run.out == b"in\n"

    @case
    async def test_exec_answers_after_its_input_has_ended(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            run = await self.execute(runtime, id, self.process(kit, "size", stdin=True), b"x" * 70_000)
            assert (run.out, run.status.code) == (b"70000\n", 0)
            run = await self.execute(runtime, id, self.process(kit, "size", stdin=True), b"")
            assert run.out == b"0\n"

    @case
    async def test_exec_without_stdin_has_an_empty_input(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            assert (await self.execute(runtime, id, self.process(kit, "size"))).out == b"0\n"

    @case
    async def test_exec_moves_much_both_ways(self, kit: Kit) -> None:
        data = os.urandom(1 << 14) * 16
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            assert (await self.execute(runtime, id, self.process(kit, "cat", stdin=True), data)).out == data
            out = (await self.execute(runtime, id, self.process(kit, "lines", "3000"))).out
            assert out.endswith(b"line 3000\n") and out.count(b"\n") == 3000

    @case
    async def test_exec_has_its_own_environment(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep", env=(("OF", "the entrypoint"),))) as id:
            own = self.process(kit, "env", "OF", env=(("OF", "the exec"),))
            assert (await self.execute(runtime, id, own)).out == b"the exec\n"
            assert (await self.execute(runtime, id, self.process(kit, "env", "OF"))).out == b"\n"

    @needs("files")
    @case
    async def test_exec_has_its_own_user_and_directory(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep", user="1000")) as id:
            run = await self.execute(
                runtime, id, self.process(kit, "sh", "id -u; id -g; pwd", user="1234:4321", cwd="/bin")
            )
            assert run.out == b"1234\n4321\n/bin\n"

    @case
    async def test_exec_does_not_run_before_it_is_started(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "print", "early", ""), attach=True)
            assert made.stdio is not None
            assert await asyncio.to_thread(select.select, [made.stdio.socket], [], [], 0.1) == ([], [], [])
            os.close(made.stdio.socket)
            assert (await runtime.start_exec(id, made.id)).code == 0

    @case
    async def test_exec_whose_client_has_left_goes_on(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "lines", "200"), attach=True)
            assert made.stdio is not None
            os.close(made.stdio.socket)
            assert (await runtime.start_exec(id, made.id)).code == 0

    @case
    async def test_exec_of_an_unknown_command_is_127(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(FailedPrecondition) as refused:
                await self.execute(runtime, id, self.process(kit, "missing"))
            assert refused.value.code == "entrypoint-not-found"
            assert refused.value.subject["exit_status"] == 127
            assert (await self.execute(runtime, id, self.process(kit, "exit", "2"))).status.code == 2

    @case
    async def test_exec_of_an_unknown_user_is_refused(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(InvalidArgument) as refused:
                await runtime.exec(id, self.process(kit, "sleep", user="nobody-of-this-name"), attach=False)
            assert refused.value.code == "user-unknown"

    @needs("prepare")
    @case
    async def test_exec_before_the_entrypoint_runs(self, kit: Kit) -> None:
        """What prepares a sandbox (`preStart` hooks) runs in it before it starts."""
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "print", "late", "")) as id:
            run = await self.execute(runtime, id, self.process(kit, "print", "early", ""))
            assert (run.status.code, run.out) == (0, b"early\n")
            assert await self.state(runtime, id) is SandboxState.CREATED
            await runtime.start(id)
            assert (await runtime.wait(id)).code == 0

    @case
    async def test_exec_starts_once(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            made = await runtime.exec(id, self.process(kit, "exit", "0"), attach=False)
            await runtime.start_exec(id, made.id)
            with pytest.raises(NotFound) as refused:
                await runtime.start_exec(id, made.id)
            assert refused.value.code == "exec-not-found"

    @case
    async def test_exec_belongs_to_its_sandbox(self, kit: Kit) -> None:
        runtime = kit.make()
        async with (
            self.running(runtime, self.spec(kit, "sleep")) as one,
            self.running(runtime, self.spec(kit, "sleep")) as two,
        ):
            made = await runtime.exec(one, self.process(kit, "exit", "3"), attach=False)
            for id, name in ((two, made.id), (one, "no-such-exec")):
                with pytest.raises(NotFound) as refused:
                    await runtime.start_exec(id, name)
                assert refused.value.code == "exec-not-found"
            assert (await runtime.start_exec(one, made.id)).code == 3

    @case
    async def test_execs_at_once(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            processes = [self.process(kit, "exit", str(code)) for code in range(5)]
            runs = await asyncio.gather(*(self.execute(runtime, id, process) for process in processes))
            assert [run.status.code for run in runs] == list(range(5))
