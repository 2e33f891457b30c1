"""What people do with agents: run, exec, list; the daemon's start and its memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benches.measure import Command, interleave
from benches.ours import proportional_memory, resident_memory
from benches.outcome import Outcome

if TYPE_CHECKING:
    from benches.outcome import Contenders

__all__ = ["commands", "exec_true", "first_use", "memory", "run_true", "run_with_network"]


def run_true(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true, daemon up, no network, removed afterwards, beside what does the same."""
    ours = contenders.ours
    bundle = contenders.runc.bundle("bundle-true", ["/bin/true"])
    series = interleave(
        [
            Command(
                "aos run", ours.argv("run", "--rm", "--entrypoint", "/bin/true", "busybox:1"), ours.environ
            ),
            Command("podman run", contenders.podman.run("/bin/true")),
            Command("ctr run", contenders.containerd.run("true-{n}", "/bin/true"), unique=True),
            Command("runc run", contenders.runc.run(bundle, "true-{n}"), unique=True),
        ],
        rounds,
    )
    outcome = Outcome(series=series)
    for theirs, asked in zip(series[1:], (0.45, 0.6, 1.7), strict=True):
        outcome.at_most_ratio("aos run true", series[0], theirs, asked)
    return outcome


def run_with_network(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true with a bridge, beside the same without a network, and podman with its bridge."""
    ours = contenders.ours

    def argv(mode: str) -> tuple[str, ...]:
        return ours.argv("run", "--rm", "--network", mode, "--entrypoint", "/bin/true", "busybox:1")

    series = interleave(
        [
            Command("aos run, bridge", argv("bridge"), ours.environ),
            Command("aos run, none", argv("none"), ours.environ),
            Command("podman run, bridge", contenders.podman.run("/bin/true", network="podman")),
        ],
        rounds,
    )
    outcome = Outcome(series=series)
    outcome.at_most_ratio("aos run true with a bridge", series[0], series[2], 0.2)
    return outcome


def in_containerd(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true in the containerd that ctr uses, too; ctr gets its root ready-made, ours makes a snapshot."""
    ours, ctr = contenders.ours, contenders.containerd
    config = ours.home / "containerd.toml"
    config.write_text(f'[containerd]\naddress = "{ctr.address}"\n')
    environ = ours.environ | {"AOS_CONFIG": str(config)}
    words = ("run", "--rm", "--runtime", "containerd", "--entrypoint", "/bin/true", "busybox:1")
    ours.stop_node()  # the next one reads the configuration
    try:
        series = interleave(
            [
                Command("aos run, containerd", ours.argv(*words), environ),
                Command("ctr run", ctr.run("true-{n}", "/bin/true"), unique=True),
            ],
            rounds,
        )
    finally:
        ours.stop_node()
    outcome = Outcome(series=series)
    outcome.at_most_ratio("aos run true in containerd", series[0], series[1], 1.2)
    return outcome


def exec_true(contenders: Contenders, rounds: int) -> Outcome:
    """`aos exec true` in an agent that sleeps, beside the same in the peers."""
    ours, runc, podman, ctr = contenders.ours, contenders.runc, contenders.podman, contenders.containerd
    sleep = ("/bin/sleep", "1000000")
    ours.call("run", "-d", "--name", "exec", "--entrypoint", "/bin/sleep", "busybox:1", "1000000")
    runc.start("exec", sleep)
    podman.start("exec", *sleep)
    ctr.start("exec", *sleep)
    try:
        series = interleave(
            [
                Command("aos exec", ours.argv("exec", "exec", "/bin/true"), ours.environ),
                Command("runc exec", runc.exec("exec", "/bin/true")),
                Command("podman exec", podman.exec("exec", "/bin/true")),
                Command("ctr exec", ctr.exec("exec", "true-{n}", "/bin/true"), unique=True),
            ],
            rounds,
        )
    finally:
        ours.remove("exec")
        runc.remove("exec")
        podman.remove("exec")
        ctr.remove("exec")
    outcome = Outcome(series=series)
    beyond = [a - b for a, b in zip(series[0].seconds, series[1].seconds, strict=True)]
    outcome.at_most_ms("aos exec true, beyond runc exec", beyond, 25)
    return outcome


def commands(contenders: Contenders, rounds: int) -> Outcome:
    """What a person waits for most often, with three agents there."""
    ours = contenders.ours
    names = ["one", "two", "three"]
    for name in names:
        ours.call("run", "-d", "--name", name, "--entrypoint", "/bin/sleep", "busybox:1", "1000000")
    series = interleave(
        [
            Command("aos --help", ours.argv("--help"), ours.environ),
            Command("aos ps", ours.argv("ps"), ours.environ),
        ],
        rounds,
    )
    ours.remove(*names)
    outcome = Outcome(series=series)
    for one in series:
        outcome.at_most_ms(one.command.name, one.seconds, 45)
    return outcome


def first_use(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` when no daemon runs: it starts by itself."""
    ours = contenders.ours
    [series] = interleave(
        [
            Command(
                "aos run, no daemon",
                ours.argv("run", "--rm", "--entrypoint", "/bin/true", "busybox:1"),
                ours.environ,
                before=ours.stop_node,
            )
        ],
        max(5, rounds // 5),
        warm_up=1,
    )
    outcome = Outcome(series=[series])
    outcome.at_most_ms("first use, daemon's cold start", series.seconds, 800)
    return outcome


AGENTS = 50


def memory(contenders: Contenders, rounds: int) -> Outcome:
    """The idle daemon, and what each idle agent costs beyond itself (supervisor and the daemon's growth)."""
    ours = contenders.ours
    ours.stop_node()
    ours.call("node", "start")
    daemon = ours.status()["pid"]
    _settle(daemon)
    idle_resident, idle = resident_memory(daemon), proportional_memory(daemon)
    names = [f"idle-{number}" for number in range(AGENTS)]
    for name in names:
        ours.call("run", "-d", "--name", name, "--entrypoint", "/bin/sleep", "busybox:1", "1000000")
    _settle(daemon)
    supervisors = [proportional_memory(pid) for pid in ours.conmon_pids()]
    assert len(supervisors) == AGENTS, f"{len(supervisors)} supervisors for {AGENTS} agents"
    grown = proportional_memory(daemon) - idle
    with_agents = resident_memory(daemon)
    ours.remove(*names)

    sleep = ("/bin/sleep", "1000000")
    contenders.podman.start("idle", *sleep)
    contenders.containerd.start("idle", *sleep)
    theirs = {
        "podman conmon_bytes": sum(map(proportional_memory, contenders.podman.conmon_pids())),
        "containerd shim_bytes": sum(map(proportional_memory, contenders.containerd.shim_pids())),
    }
    contenders.podman.remove("idle")
    contenders.containerd.remove("idle")

    outcome = Outcome(
        facts={
            "aosd_idle_rss_bytes": idle_resident,
            "aosd_idle_pss_bytes": idle,
            "aosd_rss_bytes_with_agents": with_agents,
            "aosd_pss_growth_bytes": grown,
            "agents": AGENTS,
            "supervisor_pss_bytes": supervisors,
            **theirs,
        }
    )
    outcome.at_most_mib("aosd, idle (RSS)", idle_resident, 60)
    each = (sum(supervisors) + max(0, grown)) / AGENTS
    outcome.at_most_mib(f"each of {AGENTS} idle agents, beyond itself (PSS)", each, 5)
    return outcome


def _settle(pid: int) -> None:
    """Wait until a process has used no CPU for half a second."""
    last, quiet = -1, 0
    while quiet < 5:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used = int(words[11]) + int(words[12])
        quiet = quiet + 1 if used == last else 0
        last = used
        time.sleep(0.1)
