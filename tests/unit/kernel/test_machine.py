"""The process machine: what each command decides, and that state is the fold of its events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aos.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from aos.kernel.process.effects import Discard, Erase, Launch, Signal, Terminate, Wake
from aos.kernel.process.events import Event, ProcessExited, ProcessSpawned
from aos.kernel.process.machine import (
    BACKOFF_FIRST,
    BACKOFF_LONGEST,
    HEALTHY_AFTER,
    Decision,
    Machine,
    replay,
)
from aos.kernel.process.records import AgentState, ExitRecord, ProcessState, Program

PROGRAM = Program("it:1", "sha256:0", "it", "1.0.0", ("x",), "", {})
ID = "0123456789ab"


def ended(pid: int, code: int | None, cause: str = "exited") -> ExitRecord:
    return ExitRecord(pid, cause, code, None, 255 if code is None else code, 1.0, 2.0)


def running(restart: str = "never", *, remove: bool = False) -> Machine:
    machine = Machine()
    machine.run(ID, "name", PROGRAM, restart=restart, remove=remove, at=1.0)
    machine.launched(1, at=2.0)
    return machine


def state(machine: Machine) -> AgentState:
    return machine.state.agents[ID].state


def test_run_creates_an_agent_and_launches_its_process() -> None:
    machine = Machine()
    decision = machine.run(ID, "name", PROGRAM, restart="never", remove=False, at=1.0)
    assert decision.effects == [Launch(1)]
    assert state(machine) is AgentState.CREATED
    assert machine.launched(1, at=2.0).events
    assert state(machine) is AgentState.RUNNING
    assert machine.launched(1, at=3.0).events == []


@pytest.mark.parametrize("name", ["", "-x", "a b", "ü", "x" * 64, "../x"])
def test_names_have_a_grammar(name: str) -> None:
    with pytest.raises(InvalidArgument):
        Machine().run(ID, name, PROGRAM, restart="never", remove=False, at=1.0)


def test_a_name_belongs_to_one_agent_until_that_is_removed() -> None:
    machine = running()
    with pytest.raises(AlreadyExists) as refused:
        machine.run("other", "name", PROGRAM, restart="never", remove=False, at=2.0)
    assert refused.value.code == "name-in-use"
    machine.exited(1, ended(1, 0), at=3.0)
    machine.remove(ID, force=False, at=4.0)
    machine.run("other", "name", PROGRAM, restart="never", remove=False, at=5.0)
    assert machine.state.last_pid == 2


def test_an_exit_is_recorded_once() -> None:
    machine = running()
    assert len(machine.exited(1, ended(1, 3), at=3.0).events) == 1
    assert machine.exited(1, ended(1, 0), at=4.0).events == []
    process = machine.state.processes[1]
    assert process.state is ProcessState.EXITED
    assert process.exit is not None and process.exit.code == 3
    assert state(machine) is AgentState.EXITED


def test_failures_restart_with_growing_pauses_and_a_long_run_clears_them() -> None:
    machine = running("on-failure")
    at, waits = 2.0, []
    for pid in range(1, 16):
        [wake] = machine.exited(pid, ended(pid, 1), at=at).effects
        assert isinstance(wake, Wake)
        waits.append(wake.at - at)
        assert state(machine) is AgentState.RESTARTING
        decision = machine.due(ID, at=wake.at)
        assert decision.effects == [Discard(f"{ID}-{pid}"), Launch(pid + 1)]
        at = wake.at
        machine.launched(pid + 1, at=at)
    assert waits[:3] == pytest.approx([BACKOFF_FIRST, 2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST])
    assert waits[-1] == pytest.approx(BACKOFF_LONGEST)
    [wake] = machine.exited(16, ended(16, 1), at=at + HEALTHY_AFTER).effects
    assert isinstance(wake, Wake)
    assert wake.at - at - HEALTHY_AFTER == pytest.approx(BACKOFF_FIRST)
    assert machine.state.agents[ID].restarts == 15


def test_success_ends_an_on_failure_agent_and_lost_restarts_it() -> None:
    machine = running("on-failure")
    assert machine.exited(1, ended(1, 0), at=3.0).effects == []
    assert state(machine) is AgentState.EXITED
    machine = running("on-failure")
    machine.exited(1, ended(1, None, "lost"), at=3.0)
    assert state(machine) is AgentState.RESTARTING


def test_stop_wins_over_the_restart_policy() -> None:
    machine = running("on-failure")
    assert machine.stop(ID, grace=3.0, at=3.0).effects == [Terminate(1, 3.0)]
    assert state(machine) is AgentState.STOPPING
    assert machine.exited(1, ended(1, 143), at=4.0).effects == []
    assert state(machine) is AgentState.EXITED
    assert machine.stop(ID, grace=3.0, at=5.0) == Decision()


def test_stop_while_waiting_for_a_restart() -> None:
    machine = running("on-failure")
    machine.exited(1, ended(1, 1), at=3.0)
    machine.stop(ID, grace=1.0, at=3.05)
    assert state(machine) is AgentState.EXITED
    assert machine.due(ID, at=3.2) == Decision()


def test_what_is_killed_stays_ended() -> None:
    machine = running("on-failure")
    assert machine.kill(ID, "KILL", at=3.0).effects == [Signal(1, "KILL")]
    assert machine.exited(1, ended(1, 137), at=4.0).effects == []
    assert state(machine) is AgentState.EXITED


def test_another_signal_leaves_the_restart_policy_alone() -> None:
    machine = running("on-failure")
    machine.kill(ID, "TERM", at=3.0)
    machine.exited(1, ended(1, 143), at=4.0)
    assert state(machine) is AgentState.RESTARTING


def test_kill_needs_a_running_process() -> None:
    machine = running()
    assert machine.kill(ID, "USR1", at=3.0).effects == [Signal(1, "USR1")]
    machine.exited(1, ended(1, 0), at=4.0)
    with pytest.raises(FailedPrecondition) as refused:
        machine.kill(ID, "USR1", at=5.0)
    assert refused.value.code == "agent-not-running"


def test_removal() -> None:
    machine = running()
    with pytest.raises(FailedPrecondition) as refused:
        machine.remove(ID, force=False, at=3.0)
    assert refused.value.code == "agent-running"
    assert machine.remove(ID, force=True, at=3.0).effects == [Terminate(1, 0.0)]
    assert machine.exited(1, ended(1, 137), at=4.0).effects == [Discard(f"{ID}-1"), Erase(ID)]
    assert machine.state.agents == {} and machine.state.names == {} and machine.state.processes == {}
    assert machine.exited(1, ended(1, 0), at=5.0) == Decision()


def test_removal_while_waiting_for_a_restart_and_after_rm() -> None:
    machine = running("on-failure")
    machine.exited(1, ended(1, 1), at=3.0)
    assert machine.remove(ID, force=True, at=3.0).effects == [Discard(f"{ID}-1"), Erase(ID)]
    machine = running(remove=True)
    assert machine.exited(1, ended(1, 0), at=3.0).effects == [Discard(f"{ID}-1"), Erase(ID)]
    assert machine.state.agents == {}


def test_what_never_ran_is_abandoned() -> None:
    machine = Machine()
    machine.run(ID, "name", PROGRAM, restart="on-failure", remove=False, at=1.0)
    assert machine.abandon(ID, at=2.0).effects == [Discard(f"{ID}-1"), Erase(ID)]
    assert machine.abandon(ID, at=3.0) == Decision()


def test_agents_are_found_by_name_id_and_prefix() -> None:
    machine = running()
    for text in ("name", ID, ID[:4]):
        assert machine.find(text).id == ID
    for text in ("nobody", ID[:3], ""):
        with pytest.raises(NotFound):
            machine.find(text)
    machine.run(ID[:11] + "c", "second", PROGRAM, restart="never", remove=False, at=1.0)
    with pytest.raises(InvalidArgument) as refused:
        machine.find(ID[:6])
    assert refused.value.code == "agent-ambiguous"


class Simulation(RuleBasedStateMachine):
    """Random commands, random ends of processes, and a crash at any point: the machine is then made anew from the
    journal, and the effects that were pending are asked of it again as adoption does."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.journal: list[Event] = []
        self.now = 0.0
        self.count = 0
        self.stopped: set[str] = set()

    def take(self, decision: Decision) -> None:
        self.journal += decision.events

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def agents(self) -> list[str]:
        return sorted(self.machine.state.agents)

    @rule(restart=st.sampled_from(["never", "on-failure"]), remove=st.booleans(), name=st.sampled_from("abc"))
    def run(self, restart: str, remove: bool, name: str) -> None:
        self.count += 1
        id = f"{self.count:012x}"
        if name in self.machine.state.names:
            with pytest.raises(AlreadyExists):
                self.machine.run(id, name, PROGRAM, restart=restart, remove=remove, at=self.tick())
        else:
            self.take(self.machine.run(id, name, PROGRAM, restart=restart, remove=remove, at=self.tick()))

    @precondition(lambda self: self.machine.state.agents)
    @rule(
        data=st.data(),
        what=st.sampled_from(["launched", "exited", "stop", "kill", "remove", "due", "abandon"]),
    )
    def act(self, data: st.DataObject, what: str) -> None:
        id = data.draw(st.sampled_from(self.agents()))
        agent = self.machine.state.agents[id]
        at = self.tick()
        match what:
            case "launched":
                self.take(self.machine.launched(agent.pid, at=at))
            case "exited":
                code = data.draw(st.sampled_from([0, 1, None]))
                decision = self.machine.exited(agent.pid, ended(agent.pid, code), at=at)
                assert not (id in self.stopped and any(isinstance(one, Wake) for one in decision.effects))
                self.take(decision)
            case "stop":
                self.take(self.machine.stop(id, grace=1.0, at=at))
                self.stopped.add(id)
            case "kill":
                try:
                    self.take(self.machine.kill(id, "TERM", at=at))
                except FailedPrecondition:
                    assert self.machine.state.processes[agent.pid].state is not ProcessState.RUNNING
            case "remove":
                try:
                    self.take(self.machine.remove(id, force=data.draw(st.booleans()), at=at))
                except FailedPrecondition:
                    assert agent.state is not AgentState.EXITED
            case "due":
                spawned = self.machine.due(id, at=at)
                assert not (spawned.events and id in self.stopped)
                self.take(spawned)
            case "abandon":
                if agent.state is AgentState.CREATED:
                    self.take(self.machine.abandon(id, at=at))

    @rule()
    def crash(self) -> None:
        self.machine = Machine(replay(self.journal))

    @invariant()
    def state_is_the_fold_of_the_journal(self) -> None:
        assert replay(self.journal) == self.machine.state

    @invariant()
    def pids_count_up_and_each_exit_is_recorded_once(self) -> None:
        spawned = [event.pid for event in self.journal if isinstance(event, ProcessSpawned)]
        exits = [event.pid for event in self.journal if isinstance(event, ProcessExited)]
        assert spawned == list(range(1, len(spawned) + 1))
        assert len(exits) == len(set(exits))

    @invariant()
    def names_are_of_agents(self) -> None:
        state = self.machine.state
        assert {agent.name: id for id, agent in state.agents.items()} == state.names
        assert set(state.processes) == {agent.pid for agent in state.agents.values()}


Simulation.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSimulation = Simulation.TestCase
