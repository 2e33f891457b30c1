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
from typing import TYPE_CHECKING, Any

import pytest

from fix_installation import Installation, Result, daemon_pids, end_process
from traces import SETTLE, namespaces_in, namespaces_of

if TYPE_CHECKING:
    from aos.config import Config

pytestmark = pytest.mark.root

RESULTS = Path(__file__).parents[2] / "benches/results"
WORKERS = 3
PAUSE = (0.02, 1.5)
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
            "restarting": f"test -s /marks/{self.name}.2 && exit 0; echo > /marks/{self.name}.2; exit 7",
        }.get(self.kind, f"sleep {self.seconds}; exit {self.code}")


@dataclass(slots=True)
class Record:
    """What was seen, by all threads."""

    kills: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    asked_again: int = 0
    """Calls that a kill interrupted."""
    never_started: int = 0
    """Agents whose process a kill prevented: recorded as lost, and no process ever ran."""
    namespaces: set[frozenset[str]] = field(default_factory=set)
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
            for one in (killer, *work):
                one.result()
        self.account()
        return self.record

    def kill(self, dice: random.Random) -> None:
        try:
            while not self.enough() and not self.over.wait(dice.uniform(*PAUSE)):
                self.record.namespaces |= namespaces_of(self.aos.config)
                for pid in daemon_pids(self.aos.config):
                    end_process(pid)
                    self.record.kills += 1
        finally:
            self.over.set()

    def enough(self) -> bool:
        """As many kills as were asked for; where they are many, every kind of life has to occur."""
        return self.record.kills >= self.kills and (
            self.kills < 50 or set(self.record.finished) == set(KINDS)
        )

    def work(self, worker: int, dice: random.Random) -> None:
        try:
            number = worker
            while not self.over.is_set():
                life = Life.drawn(number, dice)
                while not self.live(life):
                    self.record.never_started += 1
                number += WORKERS
        finally:
            self.over.set()

    def live(self, life: Life) -> bool:
        """Run an agent from its start to its end; False when a kill came before its process was started."""
        self.start(life)
        if life.kind == "killed":
            self.ask("kill", life.name, too_late=("not running",))
        if life.kind == "stopped":
            self.ready(life)
            self.ask("stop", "--time", "30", life.name)
        waited = self.ask("wait", life.name).out.split()
        if (exit := self.exit_of(life))["cause"] == "lost":
            # Nobody knows: right only where there is nothing to know.
            assert not self.mark(life).exists(), f"{life} ran, and its exit was lost: {exit}"
            self.ask("rm", life.name, too_late=("no agent",))
            return False
        assert waited == [str(life.code)], (life, waited)
        self.judge(life)
        if life.removed:
            self.ask("rm", life.name, too_late=("no agent",))
        else:
            self.kept[life.name] = life
        self.record.finished[life.kind] += 1
        return True

    def start(self, life: Life) -> None:
        """Run it, again when the daemon died before it knew of it."""
        options = ["--restart", "on-failure"] if life.kind == "restarting" else []
        options += [] if life.kind == "foreground" else ["-d"]
        script = f"echo >> /marks/{life.name}; {life.script}"
        words = [
            "run",
            *options,
            "-v",
            f"{self.marks}:/marks",
            "--name",
            life.name,
            "busybox:1",
            "-c",
            script,
        ]
        while True:
            ran = self.aos(*words, check=False)
            if ran.code == 0 or (life.kind == "foreground" and ran.code in (life.code, 255)):
                return
            assert ran.code == 125, (life, ran)
            if self.aos("inspect", life.name, check=False).code == 0:
                return
            self.record.asked_again += 1

    def ask(self, *words: str, too_late: tuple[str, ...] = ()) -> Result:
        """Run a command, again when the daemon died meanwhile; `too_late`: what an error says when it has happened."""
        while True:
            result = self.aos(*words, check=False)
            if result.code == 0 or any(words in result.err for words in too_late):
                return result
            assert result.code == AGAIN, (words, result)
            self.record.asked_again += 1

    def ready(self, life: Life) -> None:
        """Wait until the agent has set its trap, or has never been started."""
        while not self.exit_of(life) and "ready" not in self.aos("logs", life.name, check=False).out:
            time.sleep(0.01)

    def mark(self, life: Life) -> Path:
        """What an agent writes first: there when its process ran."""
        return self.marks / life.name

    def exit_of(self, life: Life) -> dict[str, Any]:
        [agent] = json.loads(self.ask("inspect", life.name).out)
        self.record.agents.add(agent["agent"])
        return agent["exit"] or {}

    def judge(self, life: Life) -> None:
        """The exit record must say what the life was drawn to be, and its process must have run as often."""
        exit = self.exit_of(life)
        assert exit["shell_code"] == life.code, (life, exit)
        assert exit["cause"] == ("signaled" if life.kind == "killed" else "exited"), (life, exit)
        times = self.mark(life).read_text().count("\n") if life.kind != "killed" else 1
        assert times == (2 if life.kind == "restarting" else 1), (life, times)

    def account(self) -> None:
        """Every agent that was not removed is listed, and no other; then remove them."""
        listed = {agent["name"]: agent for agent in self.aos("ps", "-a", "-o", "json").json}
        assert set(listed) == set(self.kept)
        for life in self.kept.values():
            self.judge(life)
        if listed:
            self.aos("rm", *listed)


def left_behind(config: Config, record: Record) -> list[str]:
    """Files named after an agent, and processes in a namespace that was an agent's. (`aos` checks the rest.)"""
    files = [
        f"{directory}/{name}"
        for place in (config.root, config.state)
        for directory, directories, names in os.walk(place)
        for name in (*directories, *names)
        if any(agent in name for agent in record.agents)
    ]
    return files + namespaces_in(record.namespaces)


def nothing_is_left(config: Config, record: Record) -> None:
    deadline = time.monotonic() + SETTLE  # files of a sandbox go after the answer
    while left := left_behind(config, record):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


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
    result = {
        "seed": seed,
        "kills": record.kills,
        "agents": record.finished.total(),
        "by_kind": dict(sorted(record.finished.items())),
        "calls_interrupted": record.asked_again,
        "never_started": record.never_started,
        "wrong_codes": 0,
        "left_behind": 0,
        "seconds": round(time.monotonic() - begin, 1),
    }
    print(json.dumps(result))
    file = RESULTS / f"{time.strftime('%Y-%m-%d', time.gmtime())}-campaign.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
