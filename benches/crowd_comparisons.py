"""Many agents: several started at once, and a thousand that are idle."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benches.measure import Command, at_once, interleave
from benches.ours import kill_and_wait, proportional_memory, resident_memory
from benches.outcome import MIB, Outcome

if TYPE_CHECKING:
    from benches.outcome import Contenders

__all__ = ["density", "eight_at_once"]

CALLERS = 8
AGENTS = 1000
LISTINGS = 20


def eight_at_once(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true by eight callers at once, 24 a round, beside podman with as many."""
    crowds = at_once(
        [
            Command("aos run, 8 at once", contenders.ours.true(), contenders.ours.environ),
            Command("podman run, 8 at once", contenders.podman.run("/bin/true")),
        ],
        CALLERS,
        3 * CALLERS,
        max(1, rounds // 12),
    )
    outcome = Outcome(
        series=[one.series for one in crowds],
        facts={f"{one.series.command.name}, runs a second": one.rates for one in crowds},
    )
    outcome.at_least_rate("aos run true, 8 at once, runs a second", crowds[0], crowds[1], 4)
    return outcome


def density(contenders: Contenders, rounds: int) -> Outcome:
    """The idle daemon; then 1,000 agents that sleep: what each costs beyond itself (supervisor and the daemon's growth),
    and how long they take to list. With fewer than 100 rounds, ten agents for each."""
    ours, agents = contenders.ours, min(AGENTS, 10 * rounds)
    ours.stop_node()
    ours.call("node", "start")
    daemon = ours.status()["pid"]
    _settle(daemon)
    idle_resident, idle = resident_memory(daemon), proportional_memory(daemon)
    names = [f"idle-{number}" for number in range(agents)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(ours.start, names))
    started = time.perf_counter() - begin
    try:
        _settle(daemon)
        supervisors = [proportional_memory(pid) for pid in ours.conmon_pids()]
        assert len(supervisors) == agents, f"{len(supervisors)} supervisors for {agents} agents"
        grown, with_agents = proportional_memory(daemon) - idle, resident_memory(daemon)
        descriptors = len(list(Path(f"/proc/{daemon}/fd").iterdir()))
        spent = _cpu_seconds(daemon)
        time.sleep(1)
        spent = _cpu_seconds(daemon) - spent
        [listing] = interleave([Command(f"aos ps of {agents}", ours.argv("ps"), ours.environ)], LISTINGS)
        kill_and_wait(daemon)
        begin = time.perf_counter()
        ours.call("ps")
        adopted = time.perf_counter() - begin
    finally:
        begin = time.perf_counter()
        ours.remove(*names)
        removed = time.perf_counter() - begin

    outcome = Outcome(
        series=[listing],
        facts={
            "aosd_idle_rss_bytes": idle_resident,
            "aosd_idle_pss_bytes": idle,
            "aosd_rss_bytes_with_agents": with_agents,
            "aosd_pss_growth_bytes": grown,
            "aosd_descriptors": descriptors,
            "aosd_cpu_seconds_a_second": spent,
            "agents": agents,
            "started_a_second": agents / started,
            "adopted_by_a_new_daemon_seconds": adopted,
            "removed_a_second": agents / removed,
            "supervisor_pss_bytes": supervisors,
            **_theirs(contenders),
        },
    )
    outcome.at_most_mib("aosd, idle (RSS)", idle_resident, 60)
    outcome.at_most_mib(f"aosd with {agents} idle agents (RSS)", with_agents, 250)
    each = (sum(supervisors) + max(0, grown)) / agents
    outcome.at_most_mib(f"each of {agents} idle agents, beyond itself (PSS)", each, 5e6 / MIB)
    outcome.at_most_ms(listing.command.name, listing.seconds, 200)
    return outcome


def _theirs(contenders: Contenders) -> dict[str, int]:
    """What supervises one idle container of the peers."""
    sleep = ("/bin/sleep", "1000000")
    contenders.podman.start("idle", *sleep)
    contenders.containerd.start("idle", *sleep)
    found = {
        "podman conmon_bytes": sum(map(proportional_memory, contenders.podman.conmon_pids())),
        "containerd shim_bytes": sum(map(proportional_memory, contenders.containerd.shim_pids())),
    }
    contenders.podman.remove("idle")
    contenders.containerd.remove("idle")
    return found


def _settle(pid: int) -> None:
    """Wait until a process has used no CPU for half a second, ten seconds at most."""
    last, quiet = -1.0, 0
    deadline = time.monotonic() + 10
    while quiet < 5 and time.monotonic() < deadline:
        used = _cpu_seconds(pid)
        quiet = quiet + 1 if used == last else 0
        last = used
        time.sleep(0.1)


def _cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100
