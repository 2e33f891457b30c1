"""The daemon is killed at random moments while agents start, run, end with known codes and are removed.

Afterwards every agent must be accounted for, every code right, and no mount, cgroup, namespace, process or file be
left. `make campaign` runs it with 50 kills and writes what happened to benches/results; the default suite with 5.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fix_installation import Installation, Result, daemon_pids, end_process
from traces import namespaces_in, namespaces_of

if TYPE_CHECKING:
    from aos.config import Config

pytestmark = pytest.mark.root

RESULTS = Path(__file__).parents[2] / "benches/results"
WORKERS = 3
PAUSE = (0.02, 0.6)
"""Seconds between two kills, at least and at most: some hit a start, some a re-adoption, some an idle daemon."""

AGAIN = 11
"""The exit code of Unavailable: what was asked may or may not have happened, and may be asked again."""

KINDS = ("foreground", "detached", "killed", "stopped", "restarting")


@dataclass(frozen=True, slots=True)
class Life:
    """What is going to happen to one agent, and the shell's code that it must end with."""

    name: str
    kind: str
    code: int
    seconds: float
    removed: bool
    """Removed at once; else it stays until the end."""

    @classmethod
    def drawn(cls, number: int, dice: random.Random) -> Life:
        kind = dice.choice(KINDS)
        code = {"killed": 137, "restarting": 0}.get(kind, dice.randrange(100))
        return cls(f"life-{number}", kind, code, round(dice.uniform(0, 0.4), 3), dice.random() < 0.5)

    @property
    def script(self) -> str:
        return {
            "killed": "sleep 1000",
            "stopped": f"trap 'exit {self.code}' TERM; echo ready; while :; do sleep 0.05; done",
            "restarting": f"test -e /marks/{self.name} && exit 0; touch /marks/{self.name}; exit 7",
        }.get(self.kind, f"sleep {self.seconds}; exit {self.code}")


@dataclass(slots=True)
class Record:
    """What was seen, by all threads."""

    kills: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    asked_again: int = 0
    namespaces: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)
    """Ids: no path may contain one at the end."""


class Campaign:
    def __init__(self, aos: Installation, kills: int, seed: int) -> None:
        self.aos, self.kills, self.seed = aos, kills, seed
        self.record = Record()
        self.over = threading.Event()
        self.kept: dict[str, Life] = {}
        self.marks = aos.root.parent / "marks"
        self.marks.mkdir()

    def run(self) -> Record:
        dice = random.Random(self.seed)
        with ThreadPoolExecutor(WORKERS + 1) as threads:
            work = [
                threads.submit(self.work, worker, random.Random(dice.random())) for worker in range(WORKERS)
            ]
            killer = threads.submit(self.kill, random.Random(dice.random()))
            killer.result()
            for one in work:
                one.result()
        self.account()
        return self.record

    def kill(self, dice: random.Random) -> None:
        try:
            while self.record.kills < self.kills:
                time.sleep(dice.uniform(*PAUSE))
                self.record.namespaces |= namespaces_of(self.aos.config)
                for pid in daemon_pids(self.aos.config):
                    end_process(pid)
                    self.record.kills += 1
        finally:
            self.over.set()

    def work(self, worker: int, dice: random.Random) -> None:
        number = worker
        while not self.over.is_set():
            self.live(Life.drawn(number, dice))
            number += WORKERS

    def live(self, life: Life) -> None:
        options = (
            ["--restart", "on-failure", "-v", f"{self.marks}:/marks"] if life.kind == "restarting" else []
        )
        words = ["run", "--name", life.name, *options, "busybox:1", "-c", life.script]
        if life.kind == "foreground":
            ran = self.start(life, words)
            # 125: aos itself failed (the daemon died while it started the agent), and the agent is there
            assert ran is None or ran.code in (life.code, 125), (life, ran)
        else:
            self.start(life, ["run", "-d", *words[1:]])
        if life.kind == "killed":
            self.ask("kill", life.name)
        if life.kind == "stopped":
            self.ready(life)
            self.ask("stop", "--time", "30", life.name)
        waited = self.ask("wait", life.name).out.split()
        assert waited == [str(life.code)], (life, waited)
        self.judge(life)
        if life.removed:
            self.ask("rm", life.name, gone_is_fine=True)
        else:
            self.kept[life.name] = life
        self.record.finished[life.kind] += 1

    def start(self, life: Life, words: list[str]) -> Result | None:
        """Run it, again when the daemon died before it knew of it; None when it is there although `run` failed."""
        while True:
            ran = self.aos(*words, check=False)
            if ran.code != 125 or life.code == 125:
                return ran
            if self.aos("inspect", life.name, check=False).code == 0:
                return None
            self.record.asked_again += 1

    def ask(self, *words: str, gone_is_fine: bool = False) -> Result:
        while True:
            result = self.aos(*words, check=False)
            if result.code == 0 or (gone_is_fine and "not-found" in result.err):
                return result
            assert result.code == AGAIN, (words, result)
            self.record.asked_again += 1

    def ready(self, life: Life) -> None:
        """Wait until the agent has set its trap."""
        while "ready" not in self.ask("logs", life.name).out:
            time.sleep(0.01)

    def judge(self, life: Life) -> None:
        """The exit record must say what the life was drawn to be."""
        [agent] = json.loads(self.ask("inspect", life.name).out)
        self.record.agents.add(
            agent["agent"]["agent"] if isinstance(agent["agent"], dict) else agent["agent"]
        )
        exit = agent["exit"]
        assert exit["shell_code"] == life.code, (life, exit)
        assert exit["cause"] == ("signaled" if life.kind == "killed" else "exited"), (life, exit)

    def account(self) -> None:
        """Every agent that was not removed is listed, and no other; then remove them."""
        listed = {agent["name"]: agent for agent in self.aos("ps", "-a", "-o", "json").json}
        assert set(listed) == set(self.kept)
        for life in self.kept.values():
            self.judge(life)
        if listed:
            self.aos("rm", *listed)


def nothing_is_left(config: Config, record: Record) -> None:
    """No file named after an agent, and no process in a namespace that was an agent's. (`aos` checks the rest.)"""
    for place in (config.root, config.state):
        named = [
            f"{directory}/{name}"
            for directory, directories, files in os.walk(place)
            for name in (*directories, *files)
            if any(agent in name for agent in record.agents)
        ]
        assert not named
    assert not namespaces_in(record.namespaces)


@pytest.mark.timeout(120)
def test_five_kills(aos: Installation) -> None:
    record = Campaign(aos, kills=5, seed=5).run()
    assert record.kills >= 5
    assert record.finished.total() > 0
    nothing_is_left(aos.config, record)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_fifty_kills(aos: Installation) -> None:
    seed = int(os.environ.get("CAMPAIGN_SEED", time.strftime("%Y%m%d")))
    begin = time.monotonic()
    record = Campaign(aos, kills=50, seed=seed).run()
    nothing_is_left(aos.config, record)
    assert set(record.finished) == set(KINDS), "too few agents lived: every kind has to occur"
    result = {
        "seed": seed,
        "kills": record.kills,
        "agents": record.finished.total(),
        "by_kind": dict(sorted(record.finished.items())),
        "asked_again": record.asked_again,
        "wrong_codes": 0,
        "left_behind": 0,
        "seconds": round(time.monotonic() - begin, 1),
    }
    print(json.dumps(result))
    file = RESULTS / f"{time.strftime('%Y-%m-%d', time.gmtime())}-campaign.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
