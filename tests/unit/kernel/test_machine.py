"""The process machine: what each command decides, and that state is the fold of its events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aos.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from aos.kernel.process.effects import Discard, Erase, Freeze, Launch, Signal, Terminate, Thaw, Wake
from aos.kernel.process.events import Event, ProcessExited, ProcessSpawned
from aos.kernel.process.fold import replay
from aos.kernel.process.machine import Decision, Machine
from aos.kernel.process.records import AgentState, ExitRecord, ProcessState, Program
from aos.kernel.process.restart import (
    BACKOFF_FIRST,
    BACKOFF_LONGEST,
    HEALTHY_AFTER,
    POLICIES,
    RestartLimit,
    starts_at_boot,
)

PROGRAM = Program("it:1", "sha256:0", "it", "1.0.0", ("x",), "", {})
ID = "0123456789ab"


def ended(pid: int, code: int | None, cause: str = "exited") -> ExitRecord:
    return ExitRecord(pid, cause, code, None, 255 if code is None else code, 1.0, 2.0)


ERASED = Erase(ID, "name", (f"{ID}-1",), PROGRAM)


def running(
    restart: str = "never", *, remove: bool = False, replicas: int = 1, limit: RestartLimit | None = None
) -> Machine:
    machine = Machine()
    machine.run(ID, "name", PROGRAM, restart=restart, remove=remove, at=1.0, replicas=replicas, limit=limit)
    for pid in range(1, replicas + 1):
        machine.launched(pid, at=2.0)
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
    assert machine.exited(1, ended(1, 137), at=4.0).effects == [ERASED]
    assert machine.state.agents == {} and machine.state.names == {} and machine.state.processes == {}
    assert machine.exited(1, ended(1, 0), at=5.0) == Decision()


def test_removal_while_waiting_for_a_restart_and_after_rm() -> None:
    machine = running("on-failure")
    machine.exited(1, ended(1, 1), at=3.0)
    assert machine.remove(ID, force=True, at=3.0).effects == [ERASED]
    machine = running(remove=True)
    assert machine.exited(1, ended(1, 0), at=3.0).effects == [ERASED]
    assert machine.state.agents == {}


def test_what_never_ran_is_abandoned() -> None:
    machine = Machine()
    machine.run(ID, "name", PROGRAM, restart="on-failure", remove=False, at=1.0)
    assert machine.abandon(ID, at=2.0).effects == [ERASED]
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


def test_always_and_unless_stopped_restart_success_too() -> None:
    for policy in ("always", "unless-stopped"):
        machine = running(policy)
        machine.exited(1, ended(1, 0), at=3.0)
        assert state(machine) is AgentState.RESTARTING
        machine.stop(ID, at=3.0)
        assert state(machine) is AgentState.EXITED


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stopped", [True, False])
def test_after_a_boot_agents_run_again_as_their_policy_says(policy: str, stopped: bool) -> None:
    machine = running(policy, limit=RestartLimit(1, 100.0))
    assert machine.boot("first", at=2.0).effects == []
    if stopped:
        machine.stop(ID, at=3.0)
        machine.exited(1, ended(1, 143), at=4.0)
    else:  # it gives up
        machine.exited(1, ended(1, 1), at=3.0)
        machine.due(ID, at=3.1)
        machine.exited(2, ended(2, 1), at=4.0)
    assert machine.boot("first", at=5.0) == Decision()
    effects = machine.boot("second", at=6.0).effects
    assert state(machine) is (AgentState.RESTARTING if effects else AgentState.EXITED)
    assert bool(effects) is starts_at_boot(policy, stopped=stopped)
    expected = policy == "always" or (policy == "unless-stopped" and not stopped)
    assert bool(effects) is expected
    assert machine.boot("second", at=7.0) == Decision()


def test_on_failure_with_a_number_gives_up_after_that_many_restarts() -> None:
    machine = running("on-failure:2")
    for pid in (1, 2):
        machine.exited(pid, ended(pid, 1), at=pid + 2.0)
        machine.due(ID, at=pid + 2.5)
        machine.launched(pid + 1, at=pid + 2.5)
    machine.exited(3, ended(3, 1), at=6.0)
    agent = machine.state.agents[ID]
    assert agent.state is AgentState.EXITED
    assert agent.restarts == 2
    assert "on-failure:2 allows 2 restarts" in agent.gave_up


def test_an_intensity_limit_makes_the_whole_agent_give_up() -> None:
    machine = running("always", replicas=2, limit=RestartLimit(2, 60.0))
    at, pid = 10.0, 1
    for following in (3, 4):
        machine.exited(pid, ended(pid, 0), at=at)
        machine.due(ID, 0, at=at)
        machine.launched(following, at=at)
        at, pid = at + 20.0, following
    assert machine.exited(4, ended(4, 0), at=at).effects == [Terminate(2, PROGRAM.grace)]
    assert state(machine) is AgentState.STOPPING
    assert "restarted 2 times within 60 s" in machine.state.agents[ID].gave_up
    machine.exited(2, ended(2, 143), at=at + 1)
    assert state(machine) is AgentState.EXITED


def test_restarts_that_are_long_past_do_not_count() -> None:
    machine = running("always", limit=RestartLimit(2, 60.0))
    for pid in range(1, 10):
        at = 40.0 * pid
        machine.exited(pid, ended(pid, 0), at=at)
        machine.due(ID, at=at)
        machine.launched(pid + 1, at=at)
    assert state(machine) is AgentState.RUNNING


def test_a_replica_that_dies_is_restarted_alone() -> None:
    machine = running("on-failure", replicas=3)
    machine.exited(2, ended(2, 1), at=3.0)
    assert state(machine) is AgentState.RUNNING
    assert machine.due(ID, 1, at=4.0).effects == [Discard(f"{ID}-2"), Launch(4)]
    assert machine.due(ID, 1, at=4.0) == Decision()
    assert machine.state.agents[ID].pids == (1, 4, 3)
    assert machine.stop(ID, grace=1.0, at=5.0).effects == [Terminate(pid, 1.0) for pid in (1, 4, 3)]
    for pid in (1, 4):
        machine.exited(pid, ended(pid, 0), at=6.0)
    assert state(machine) is AgentState.STOPPING
    machine.exited(3, ended(3, 0), at=6.0)
    assert state(machine) is AgentState.EXITED


def test_what_is_unhealthy_is_ended_with_that_cause_and_restarted() -> None:
    machine = running("on-failure")
    assert machine.health(1, "healthy", "", restart=True, at=3.0).events
    assert machine.health(1, "healthy", "", restart=True, at=4.0) == Decision()
    decision = machine.health(1, "unhealthy", "no answer", restart=True, at=5.0)
    assert decision.effects == [Terminate(1, PROGRAM.grace)]
    assert machine.health(1, "unhealthy", "no answer", restart=True, at=6.0) == Decision()
    machine.exited(1, ended(1, 0), at=7.0)
    last = machine.state.processes[1].exit
    assert last is not None and (last.cause, last.code, last.detail) == ("health", 0, "no answer")
    assert state(machine) is AgentState.RESTARTING
    assert machine.health(1, "healthy", "", restart=True, at=8.0) == Decision()


def test_unhealthy_without_a_restart_is_only_said() -> None:
    machine = running("on-failure")
    assert machine.health(1, "unhealthy", "", restart=False, at=5.0).effects == []
    assert machine.state.processes[1].health == "unhealthy"
    assert machine.readiness(1, False, "", at=5.0).events
    assert machine.readiness(1, False, "", at=6.0) == Decision()


def test_pausing() -> None:
    machine = running("always", replicas=2)
    assert machine.pause(ID, at=3.0).effects == [Freeze(1), Freeze(2)]
    assert machine.pause(ID, at=3.0) == Decision()
    assert state(machine) is AgentState.PAUSED
    machine.exited(1, ended(1, 137), at=4.0)
    machine.due(ID, 0, at=5.0)
    assert machine.launched(3, at=6.0).effects == [Freeze(3)]
    assert machine.unpause(ID, at=7.0).effects == [Thaw(3), Thaw(2)]
    with pytest.raises(FailedPrecondition) as refused:
        machine.unpause(ID, at=8.0)
    assert refused.value.code == "agent-not-paused"
    machine.pause(ID, at=9.0)
    assert machine.stop(ID, grace=2.0, at=10.0).effects == [Terminate(3, 2.0), Terminate(2, 2.0)]
    assert state(machine) is AgentState.STOPPING
    with pytest.raises(FailedPrecondition):
        machine.pause(ID, at=11.0)


def test_a_second_stop_may_be_quicker_and_starts_no_new_time() -> None:
    machine = running()
    machine.stop(ID, grace=100.0, at=3.0)
    assert machine.stop(ID, grace=0.0, at=4.0) == Decision(effects=[Terminate(1, 0.0)])


def test_update() -> None:
    machine = running()
    assert machine.update(ID, limits={"memory": 5}, restart="always", at=3.0).events
    assert machine.update(ID, limits={"memory": 5}, restart="always", at=3.0) == Decision()
    agent = machine.state.agents[ID]
    assert (agent.restart, agent.program.overrides["limits"]) == ("always", {"memory": 5})
    with pytest.raises(InvalidArgument):
        machine.update(ID, restart="sometimes", at=3.0)
    with pytest.raises(InvalidArgument):
        running(remove=True).update(ID, restart="always", at=3.0)


class Simulation(RuleBasedStateMachine):
    """Random commands, random ends of processes, and a crash or a boot at any point: the machine is then made anew
    from the journal. A model beside it knows what somebody asked for; the machine must never act against it."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.journal: list[Event] = []
        self.now = 0.0
        self.count = 0
        self.boots = 0
        self.stopped: set[str] = set()

    def take(self, decision: Decision) -> None:
        self.journal += decision.events

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def agents(self) -> list[str]:
        return sorted(self.machine.state.agents)

    @rule(
        restart=st.sampled_from([*POLICIES, "on-failure:1"]),
        remove=st.booleans(),
        name=st.sampled_from("abc"),
        replicas=st.integers(1, 3),
        limit=st.sampled_from([None, RestartLimit(2, 10.0)]),
    )
    def run(self, restart: str, remove: bool, name: str, replicas: int, limit: RestartLimit | None) -> None:
        self.count += 1
        id = f"{self.count:012x}"
        taken = name in self.machine.state.names
        try:
            decision = self.machine.run(
                id,
                name,
                PROGRAM,
                restart=restart,
                remove=remove,
                at=self.tick(),
                replicas=replicas,
                limit=limit,
            )
        except AlreadyExists:
            assert taken
        else:
            assert not taken
            self.take(decision)

    @precondition(lambda self: self.machine.state.agents)
    @rule(
        data=st.data(),
        what=st.sampled_from(
            [
                *("launched", "exited", "exited", "due", "due", "health", "readiness", "condemn"),
                *("stop", "kill", "remove", "abandon", "pause", "unpause", "update"),
            ]
        ),
    )
    def act(self, data: st.DataObject, what: str) -> None:
        id = data.draw(st.sampled_from(self.agents()))
        agent = self.machine.state.agents[id]
        replica = data.draw(st.integers(0, len(agent.replicas) - 1))
        pid = agent.replicas[replica].pid
        process = self.machine.state.processes[pid]
        at = self.tick()
        machine = self.machine
        match what:
            case "launched":
                decision = machine.launched(pid, at=at)
                froze = Freeze(pid) in decision.effects
                assert froze is bool(decision.events and agent.paused)
                self.take(decision)
            case "exited":
                code = data.draw(st.sampled_from([0, 1, None]))
                decision = machine.exited(pid, ended(pid, code), at=at)
                assert not (id in self.stopped and any(isinstance(one, Wake) for one in decision.effects))
                told = [event.exit.cause for event in decision.events if isinstance(event, ProcessExited)]
                assert told in ([], [process.condemned or "exited"])
                self.take(decision)
            case "stop":
                decision = machine.stop(id, grace=1.0, at=at)
                ends = {one.pid for one in decision.effects if isinstance(one, Terminate)}
                assert ends == {one for one in agent.pids if self.lives(one)}
                self.take(decision)
                if agent.state is not AgentState.EXITED:
                    self.stopped.add(id)
            case "kill":
                try:
                    self.take(machine.kill(id, data.draw(st.sampled_from(["TERM", "KILL"])), at=at))
                except FailedPrecondition:
                    assert not any(
                        machine.state.processes[one].state is ProcessState.RUNNING for one in agent.pids
                    )
                else:
                    if id in machine.state.agents and machine.state.agents[id].stopped:
                        self.stopped.add(id)
            case "remove":
                try:
                    self.take(machine.remove(id, force=data.draw(st.booleans()), at=at))
                except FailedPrecondition:
                    assert agent.state is not AgentState.EXITED
            case "due":
                spawned = machine.due(id, replica, at=at)
                assert not (spawned.events and id in self.stopped)
                self.take(spawned)
            case "health":
                status = data.draw(st.sampled_from(["healthy", "unhealthy"]))
                self.take(machine.health(pid, status, "", restart=data.draw(st.booleans()), at=at))
            case "readiness":
                self.take(machine.readiness(pid, data.draw(st.booleans()), "", at=at))
            case "condemn":
                self.take(machine.condemn(pid, "policy", "because", at=at))
            case "pause" | "unpause":
                try:
                    self.take(getattr(machine, what)(id, at=at))
                except FailedPrecondition:
                    assert (agent.state is AgentState.PAUSED) is (what == "pause") or (
                        agent.state is not AgentState.RUNNING
                    )
            case "update":
                policy = data.draw(st.sampled_from(["never", "always"]))
                try:
                    self.take(machine.update(id, limits={"pids": self.count}, restart=policy, at=at))
                except InvalidArgument:
                    assert agent.remove
            case "abandon":
                if agent.state is AgentState.CREATED:
                    self.take(machine.abandon(id, at=at))

    def lives(self, pid: int) -> bool:
        process = self.machine.state.processes.get(pid)
        return process is not None and process.lives

    @rule()
    def crash(self) -> None:
        self.machine = Machine(replay(self.journal))

    @rule()
    def boot(self) -> None:
        """As adoption does it: everything is lost, and then the new boot id is told."""
        for process in list(self.machine.state.processes.values()):
            self.take(self.machine.exited(process.pid, ended(process.pid, None, "lost"), at=self.tick()))
        self.boots += 1
        before = dict(self.machine.state.agents)
        self.take(self.machine.boot(f"boot-{self.boots}", at=self.tick()))
        for id, agent in self.machine.state.agents.items():
            begins = agent.state is AgentState.RESTARTING and before[id].state is AgentState.EXITED
            assert not begins or starts_at_boot(agent.restart, stopped=id in self.stopped)
            if begins:
                self.stopped.discard(id)

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
        assert set(state.processes) == {pid for agent in state.agents.values() for pid in agent.pids}

    @invariant()
    def an_agent_is_what_its_processes_are(self) -> None:
        for agent in self.machine.state.agents.values():
            processes = [self.machine.state.processes[pid] for pid in agent.pids]
            waiting = [replica for replica in agent.replicas if replica.restart_at is not None]
            assert (agent.state is AgentState.EXITED) is (
                not waiting and not any(process.lives for process in processes)
            )
            assert (agent.finished_at is not None) is (agent.state is AgentState.EXITED)
            assert not (agent.ending and waiting)
            assert not (agent.state is AgentState.PAUSED and agent.ending)
            for replica in waiting:
                assert not self.machine.state.processes[replica.pid].lives


Simulation.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSimulation = Simulation.TestCase
