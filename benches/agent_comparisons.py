"""What people do with agents: run, exec, list; the daemon's start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benches.measure import Command, interleave
from benches.outcome import Outcome

if TYPE_CHECKING:
    from benches.outcome import Contenders

__all__ = ["commands", "exec_true", "first_use", "in_containerd", "run_from_pool", "run_true"]


def run_true(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true, daemon up, no network, removed afterwards, beside what does the same."""
    ours = contenders.ours
    bundle = contenders.runc.bundle("bundle-true", ["/bin/true"])
    confined = contenders.runc.bundle(
        "bundle-confined", ["/bin/true"], ours.configuration("--userns", "host")
    )
    series = interleave(
        [
            Command("aos run", ours.true(), ours.environ),
            Command("podman run", contenders.podman.run("/bin/true")),
            Command("ctr run", contenders.containerd.run("true-{n}", "/bin/true"), unique=True),
            Command("runc run", contenders.runc.run(bundle, "true-{n}"), unique=True),
            # For comparison: what of the difference is the sandbox's own, which `runc spec` does without.
            Command("aos run, host ids", ours.true("--userns", "host"), ours.environ),
            Command("runc run, confined as ours", contenders.runc.run(confined, "true-{n}"), unique=True),
        ],
        2 * rounds,
    )
    outcome = Outcome(series=series)
    for theirs, asked in zip(series[1:4], (0.35, 0.5, 1.7), strict=True):
        outcome.at_most_ratio("aos run true", series[0], theirs, asked)
    return outcome


def run_from_pool(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true out of a pool that is full, beside the same without one, and podman."""
    ours = contenders.ours
    true = ("--entrypoint", "/bin/true", "busybox:1")
    pooled = ("-e", "POOLED=1", *true)

    def fill() -> None:
        ours.call("pool", "set", "--size", "4", "--wait", *pooled)
        time.sleep(0.1)  # the end of the last run, and of what it was replaced by, is not this one's

    series = interleave(
        [
            Command("aos run, pool", ours.argv("run", "--rm", *pooled), ours.environ, before=fill),
            Command("aos run", ours.argv("run", "--rm", *true), ours.environ),
            Command("aos --help", ours.argv("--help"), ours.environ),
            Command("podman run", contenders.podman.run("/bin/true")),
        ],
        rounds,
    )
    ours.call("pool", "rm", "busybox:1")
    outcome = Outcome(series=series)
    outcome.at_most_ratio("aos run true out of a pool", series[0], series[3], 0.15)
    return outcome


def in_containerd(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true in the containerd that ctr uses, too; ctr gets its root ready-made, ours makes a snapshot."""
    ours, ctr = contenders.ours, contenders.containerd
    config = ours.home / "containerd.toml"
    config.write_text(f'[containerd]\naddress = "{ctr.address}"\n')
    environ = ours.environ | {"AOS_CONFIG": str(config)}
    ours.stop_node()  # the next one reads the configuration
    try:
        series = interleave(
            [
                Command("aos run, containerd", ours.true("--runtime", "containerd"), environ),
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
    ours.start("exec")
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
    outcome.at_most_beyond("aos exec true", series[0], series[1], 15)
    outcome.at_most_ratio("aos exec true", series[0], series[2], 0.5)
    return outcome


def commands(contenders: Contenders, rounds: int) -> Outcome:
    """What a person waits for most often, with three agents there."""
    ours = contenders.ours
    names = ["one", "two", "three"]
    for name in names:
        ours.start(name)
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
                ours.true(),
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
