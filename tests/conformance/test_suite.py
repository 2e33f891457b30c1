"""The suite of runtime backends is large enough, and bites: a backend with one defect fails the case that names it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aos.errors import AosError
from aos.runtime.backends.memory import MemoryRuntime
from aos.runtime.state import ExitStatus, Sandbox, SandboxState, Usage
from aos.testing.runtime import RuntimeConformance
from memory_kit import MemoryKit

if TYPE_CHECKING:
    from signal import Signals

    from aos.ids import SandboxId
    from aos.runtime.protocol import Exec, RuntimeInfo, Stdio
    from aos.runtime.spec import AgentSpec, Limits, ProcessSpec


def test_it_has_at_least_120_cases_of_many_subjects() -> None:
    cases = {name for name in dir(RuntimeConformance) if name.startswith("test_")}
    assert len(cases) >= 120
    assert len(RuntimeConformance.__bases__) >= 20


class FalseZero(MemoryRuntime):
    async def wait(self, id: SandboxId) -> ExitStatus:
        return replace(await super().wait(id), cause="exited", code=0, signal=None)


class LeavesLogs(MemoryRuntime):
    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        log = await self.logs(id) if id in self.world else None
        await super().delete(id, force=force)
        if log is not None:
            log.touch()


class DeletesWhatRuns(MemoryRuntime):
    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        await super().delete(id, force=True)


class RaisesForNothing(MemoryRuntime):
    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        self._held(id)
        await super().delete(id, force=force)


class TakesIdsTwice(MemoryRuntime):
    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        self.world.pop(id, None)
        return await super().create(id, spec)


class StartsTwice(MemoryRuntime):
    async def start(self, id: SandboxId) -> None:
        if self._held(id).state is SandboxState.CREATED:
            await super().start(id)


class StartsAtOnce(MemoryRuntime):
    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        made = await super().create(id, spec)
        await super().start(id)
        return made


class WaitIsKilledWithItsCaller(MemoryRuntime):
    async def wait(self, id: SandboxId) -> ExitStatus:
        return await self._held(id).ended


class PauseInNameOnly(MemoryRuntime):
    async def pause(self, id: SandboxId) -> None:
        await super().pause(id)
        self._held(id).going.set()


class ExecHangs(MemoryRuntime):
    async def start_exec(self, id: SandboxId, exec_id: str) -> ExitStatus:
        status = await super().start_exec(id, exec_id)
        if status.cause == "signaled":
            await asyncio.Event().wait()
        return status


class ExecRunsEarly(MemoryRuntime):
    async def exec(self, id: SandboxId, process: ProcessSpec, *, attach: bool) -> Exec:
        made = await super().exec(id, process, attach=attach)
        self._held(id).execs[made.id].print("early")
        return made


class ForgetsTheEnvironment(MemoryRuntime):
    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        return await super().create(id, replace(spec, process=replace(spec.process, env=())))


class InheritsTheEnvironment(MemoryRuntime):
    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        env = (*os.environ.items(), *spec.process.env)
        return await super().create(id, replace(spec, process=replace(spec.process, env=env)))


class RemembersNothing(MemoryRuntime):
    """Another instance sees no sandbox."""

    async def list(self) -> list[Sandbox]:
        return [one for one in await super().list() if one.id in self.__dict__.setdefault("mine", set())]

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        self.__dict__.setdefault("mine", set()).add(id)
        return await super().create(id, spec)


class ClaimsTooMuch(MemoryRuntime):
    async def info(self) -> RuntimeInfo:
        info = await super().info()
        return replace(info, capabilities=info.capabilities - {"pause"})


class TakesAnyLimit(MemoryRuntime):
    async def update(self, id: SandboxId, limits: Limits) -> None:
        self._held(id)


class CountsNothing(MemoryRuntime):
    async def stats(self, id: SandboxId) -> Usage:
        self._held(id)
        return Usage()


class LeaksDescriptors(MemoryRuntime):
    async def attach(self, id: SandboxId) -> Stdio:
        os.dup(0)
        return await super().attach(id)


class LeaksTasks(MemoryRuntime):
    async def start(self, id: SandboxId) -> None:
        await super().start(id)
        self.__dict__.setdefault("tasks", []).append(asyncio.create_task(asyncio.Event().wait()))


class StaysStopped(MemoryRuntime):
    async def signal(self, id: SandboxId, signum: Signals, *, everyone: bool = False) -> None:
        if self._held(id).state is SandboxState.STOPPED:
            raise AosError("it is gone", code="sandbox-state")
        await super().signal(id, signum, everyone=everyone)


DEFECTS: list[tuple[type[MemoryRuntime], str, dict[str, Any]]] = [
    (FalseZero, "test_kill_is_told_from_an_exit", {}),
    (FalseZero, "test_exit_code_is_the_process_own", {"code": 7}),
    (LeavesLogs, "test_log_is_there_from_create_and_gone_with_the_sandbox", {}),
    (DeletesWhatRuns, "test_delete_refuses_what_runs_unless_forced", {}),
    (RaisesForNothing, "test_delete_of_nothing_has_no_effect", {"force": True}),
    (TakesIdsTwice, "test_create_refuses_an_id_in_use", {"state": "running"}),
    (StartsTwice, "test_of_two_starts_one_wins", {}),
    (StartsAtOnce, "test_nothing_runs_before_start", {}),
    (WaitIsKilledWithItsCaller, "test_cancelled_wait_changes_nothing", {}),
    (PauseInNameOnly, "test_nothing_goes_on_while_it_is_paused", {}),
    (ExecHangs, "test_delete_while_an_exec_runs", {}),
    (ExecRunsEarly, "test_exec_does_not_run_before_it_is_started", {}),
    (ForgetsTheEnvironment, "test_the_later_variable_wins", {}),
    (InheritsTheEnvironment, "test_nothing_of_the_caller_s_environment_arrives", {"monkeypatch": None}),
    (RemembersNothing, "test_another_instance_lists_the_same", {"state": "running"}),
    (ClaimsTooMuch, "test_what_a_backend_lacks_names_an_alternative", {"tmp_path": None}),
    (TakesAnyLimit, "test_changes_that_cannot_be", {"limits": None}),
    (CountsNothing, "test_figures_in_every_state", {"state": "running"}),
    (LeaksDescriptors, "test_no_descriptor_stays_open", {}),
    (LeaksTasks, "test_no_task_is_left_running", {}),
    (StaysStopped, "test_signal_to_a_stopped_sandbox_has_no_effect", {}),
]


@pytest.mark.parametrize(
    ("defect", "name", "more"), DEFECTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_defect_is_found(
    defect: type[MemoryRuntime],
    name: str,
    more: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from aos.runtime.spec import Limits

    given = {"tmp_path": tmp_path, "monkeypatch": monkeypatch, "limits": Limits(memory=-5)}
    arguments = {name: given[name] if value is None else value for name, value in more.items()}
    run = getattr(RuntimeConformance(), name)
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    run(MemoryKit(tmp_path / "sound"), **arguments)
    try:
        with pytest.raises(
            (AssertionError, AosError, TimeoutError, pytest.fail.Exception, asyncio.CancelledError)
        ):
            run(MemoryKit(tmp_path / "defect", defect), **arguments)
    finally:
        if defect is LeaksDescriptors:
            for name in {entry.name for entry in Path("/proc/self/fd").iterdir()} - before:
                try:
                    os.close(int(name))
                except OSError:
                    continue
