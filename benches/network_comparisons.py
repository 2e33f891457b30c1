"""What a network of its own costs an agent: up, down, and until nothing is left of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from benches.measure import Command, interleave
from benches.outcome import Outcome

if TYPE_CHECKING:
    from benches.outcome import Contenders

__all__ = ["run_with_network", "take_down"]

_LINKS = Path("/sys/class/net")


def run_with_network(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true with a bridge, beside the same without a network, and podman with its bridge."""
    ours = contenders.ours
    series = interleave(
        [
            Command("aos run, bridge", ours.true("--network", "bridge"), ours.environ),
            Command("aos run, none", ours.true("--network", "none"), ours.environ),
            Command("podman run, bridge", contenders.podman.run("/bin/true", network="podman")),
        ],
        rounds,
    )
    outcome = Outcome(series=series)
    outcome.at_most_ratio("aos run true with a bridge", series[0], series[2], 0.2)
    outcome.at_most_beyond("aos run true with a bridge", series[0], series[1], 10)
    return outcome


def take_down(contenders: Contenders, rounds: int) -> Outcome:
    """`aos rm --force` of an agent with a bridge, beside one without; and the time from the answer until its link is
    gone."""
    ours = contenders.ours
    ours.call(*ours.true("--network", "bridge")[1:])  # the bridge itself stays
    before: set[str] = set()
    gone: list[float] = []

    def start(mode: str) -> None:
        before.clear()
        before.update(_links())
        ours.start(f"down-{mode}", "--network", mode)

    def until_gone() -> None:
        begin = time.perf_counter()
        while _links() - before:
            if time.perf_counter() - begin > 10:
                raise RuntimeError(f"links stay: {_links() - before}")
            time.sleep(0.001)
        gone.append(time.perf_counter() - begin)

    series = interleave(
        [
            Command(
                f"aos rm --force, {mode}",
                ours.argv("rm", "--force", f"down-{mode}"),
                ours.environ,
                before=lambda mode=mode: start(mode),  # type: ignore[misc]
                after=until_gone if mode == "bridge" else None,
            )
            for mode in ("bridge", "none")
        ],
        max(1, rounds // 2),
    )
    outcome = Outcome(series=series, facts={"gone_after_milliseconds": [1000 * one for one in gone]})
    outcome.at_most_beyond("aos rm --force with a bridge", series[0], series[1], 5)
    outcome.at_most_ms("its link is gone, after the answer", gone, 100)
    return outcome


def _links() -> set[str]:
    """The host's."""
    return {entry.name for entry in _LINKS.iterdir()}
