"""Daemon, conmons, calls of the OCI runtime and agents are killed at random moments while agents start, run, are stopped,
paused, restarted and removed, several at once.

Afterwards every agent must be accounted for, every cause and code be true (`lives.py` says which can be after what was
killed), and no mount, cgroup, namespace, link, rule, process or file be left. `make campaign` runs it with 200 kills and
writes what happened to benches/results; the default suite with 8. CAMPAIGN_SEED repeats what a seed had drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fix_installation import crun_of_this_host
from kills import Campaign
from traces import SETTLE, Traces, claims_of, namespaces_in

if TYPE_CHECKING:
    from fix_network import World
    from kills import Record

pytestmark = pytest.mark.root

RESULTS = Path(__file__).parents[2] / "benches/results"


@dataclass(frozen=True, slots=True)
class Belongings:
    """All that an installation and its host have: counted before and after."""

    files: frozenset[str]
    """Below root and state, and claims of user ids."""
    traces: Traces
    network: tuple[str, ...]
    """Links, addresses and rules of the inner host."""

    @classmethod
    def of(cls, world: World) -> Belongings:
        config = world.installation.config
        files = frozenset(
            f"{directory}/{name}"
            for place in (config.root, config.state)
            for directory, directories, names in os.walk(place)
            for name in (*directories, *names)
        )
        files |= claims_of(config)
        network = (world.on_host("ip", "-o", "-br", "address"), world.on_host("nft", "list", "ruleset"))
        return cls(files, Traces.of(config), network)

    def difference(self, later: Belongings) -> list[str]:
        found = [
            *self.files ^ later.files,
            *later.traces.lines() - self.traces.lines(),
            *self.traces.lines() - later.traces.lines(),
        ]
        return found + [f"{a}\n->\n{b}" for a, b in zip(self.network, later.network, strict=True) if a != b]


def campaign(world: World, kills: int, seed: int) -> Record:
    """Run one on a host that has been used before, and compare what there is before and after."""
    aos = world.installation
    aos("run", "--rm", "--network", "bridge", "busybox:1", "-c", "true")
    aos("pool", "set", "--size", "1", "busybox:1")
    aos("pool", "rm", "busybox:1")
    aos("node", "stop")
    before = Belongings.of(world)
    one = Campaign(aos, kills, seed)
    record = one.run()
    shutil.rmtree(one.marks)
    aos("node", "stop")
    deadline = time.monotonic() + SETTLE  # files of a sandbox go after the answer
    while left := before.difference(Belongings.of(world)) + namespaces_in(record.namespaces, aos.config):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    return record


@pytest.mark.timeout(120)
def test_eight_kills(world: World) -> None:
    record = campaign(world, kills=8, seed=5)
    assert record.kills >= 8
    assert record.finished.total() > 0


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("runtime", "kills"), [("runc", 200), ("crun", 60)])
def test_many_kills(runtime: str, kills: int, world: World, tmp_path: Path) -> None:
    seed = int(os.environ.get("CAMPAIGN_SEED", time.strftime("%Y%m%d")))
    (tmp_path / "aos.toml").write_text(
        f'[runtime]\noci = "{crun_of_this_host(tmp_path) if runtime == "crun" else runtime}"\n'
    )
    aos = world.installation
    world.installation = type(aos)(aos.config, {**aos.environ, "AOS_CONFIG": str(tmp_path / "aos.toml")})
    begin = time.monotonic()
    record = campaign(world, kills, seed)
    result = {
        "seed": seed,
        "runtime": runtime,
        "kills": record.kills,
        "by_victim": dict(sorted(record.killed.items())),
        "agents": record.finished.total(),
        "by_kind": dict(sorted(record.finished.items())),
        "causes_of_what_was_hit": dict(sorted(record.ends.items())),
        "calls_interrupted": record.asked_again,
        "never_started": record.never_started,
        "untrue_ends": 0,
        "left_behind": 0,
        "seconds": round(time.monotonic() - begin, 1),
    }
    print(json.dumps(result))
    file = RESULTS / f"{time.strftime('%Y-%m-%d', time.gmtime())}-campaign-{runtime}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
