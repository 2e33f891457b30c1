"""Daemon, conmons, calls of the OCI runtime and agents are killed at random moments while agents start, run, are stopped,
paused, restarted and removed, several at once.

Afterwards every agent must be accounted for, every cause and code be true (`lives.py` says which can be after what was
killed), and no mount, cgroup, namespace, link, rule, process or file be left. `make campaign` runs it with 200 kills and
writes what happened to benches/results; the default suite with 8. CAMPAIGN_SEED repeats what a seed had drawn.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fix_installation import Installation, Result, crun_of_this_host, end_process
from lives import KINDS, LOST, Life, Trouble
from traces import SETTLE, Traces, namespaces_in, namespaces_of
from victims import VICTIMS, Victim, victims

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_network import World

pytestmark = pytest.mark.root

RESULTS = Path(__file__).parents[2] / "benches/results"
WORKERS = 4
PAUSE = (0.02, 1.0)
"""Seconds between two kills, at least and at most: some hit a start, some a re-adoption, some an idle daemon."""
SEARCH = 2.0
"""How long a victim of the kind that was drawn is looked for; a call of the OCI runtime lives for some milliseconds."""
KEPT = 50
"""Agents that stay until the end."""
PATIENCE = 40
"""How often a call is repeated that kills have interrupted."""
AGAIN = 11
"""The exit code of Unavailable: what was asked may or may not have happened, and may be asked again."""
FAILED = 125
"""Of `run` and `exec` when the failure is not the agent's."""


@dataclass(slots=True)
class Record:
    """What was done and seen, by all threads."""

    killed: Counter[str] = field(default_factory=Counter)
    troubles: defaultdict[str, Trouble] = field(default_factory=lambda: defaultdict(Trouble))
    """By sandbox."""
    finished: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    """Causes of the processes that something was killed of."""
    asked_again: int = 0
    """Calls that a kill interrupted."""
    never_started: int = 0
    """Agents whose process a kill prevented: recorded as lost, and no process ever ran."""
    namespaces: set[frozenset[str]] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)
    """Ids: no path may contain one at the end."""

    def intend(self, victim: Victim) -> None:
        """Before it is killed: whoever sees an end must find what led to it."""
        self.killed[victim.kind] += 1
        if victim.sandbox:
            part = "exec" if victim.exec else victim.kind
            self.troubles[victim.sandbox] |= Trouble(**{part: True})

    @property
    def kills(self) -> int:
        return self.killed.total()


class Campaign:
    def __init__(self, aos: Installation, kills: int, seed: int) -> None:
        self.aos, self.kills, self.seed = aos, kills, seed
        self.record = Record()
        self.over = threading.Event()
        self.kept: dict[str, Life] = {}
        self.marks = aos.root.parent / "marks"
        self.marks.mkdir()

    def run(self) -> Record:
        print(f"CAMPAIGN_SEED={self.seed}")  # shown when it fails
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
                victim = self.choose(dice.choice(VICTIMS), dice)
                if victim is not None:
                    self.record.intend(victim)
                    victim.kill()
                    if victim.kind == "daemon":
                        end_process(victim.pid)  # it may be a while before it is gone
        finally:
            self.over.set()

    def choose(self, kind: str, dice: random.Random) -> Victim | None:
        """Anyone of the kind, as soon as there is one."""
        deadline = time.monotonic() + SEARCH
        while time.monotonic() < deadline and not self.over.is_set():
            if there := victims(self.aos.config, kind):
                return dice.choice(there)
        return None

    def enough(self) -> bool:
        """As many kills as were asked for; where they are many, of every kind, and every kind of life has to occur."""
        return self.record.kills >= self.kills and (
            self.kills < 50
            or (set(self.record.finished) == set(KINDS) and set(self.record.killed) == set(VICTIMS))
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

    # One life.

    def live(self, life: Life) -> bool:
        """Run an agent from its start to its end; False when a kill came before its process was started."""
        self.start(life)
        self.meanwhile(life)
        if life.kind == "forced":
            self.exit_of(life)
            self.ask("rm", "--force", life.name, unless=("no agent",))
            self.record.finished[life.kind] += 1
            return True
        waited = self.ask("wait", life.name).out.split()
        exit = self.exit_of(life)
        assert waited == [str(exit["shell_code"])], (life, waited, exit)
        if exit["cause"] == "lost" and not self.mark(life).exists():
            self.judge(life)
            self.ask("rm", life.name, unless=("no agent",))
            return False
        self.judge(life)
        if life.removed or len(self.kept) >= KEPT:
            self.ask("rm", life.name, unless=("no agent",))
        else:
            self.kept[life.name] = life
        self.record.finished[life.kind] += 1
        return True

    def start(self, life: Life) -> None:
        """Run it, again when a kill prevented that."""
        words = ["run", *life.options, "-v", f"{self.marks}:/marks", "--name", life.name]
        words += ["--restart", "on-failure"] if life.restarts else []
        words += [] if life.kind == "foreground" else ["-d"]
        words += ["busybox:1", "-c", life.script]
        for _ in range(PATIENCE):
            for mark in self.marks.glob(f"{life.name}*"):
                if mark.stem == life.name:
                    mark.unlink()
            before = self.record.kills
            ran = self.aos(*words, check=False)
            if ran.code == 0 and life.kind != "foreground":
                return
            there = self.aos("inspect", life.name, check=False)
            if ran.code != FAILED and life.kind == "foreground":
                [agent] = self.ask_json("inspect", life.name)
                assert agent["exit"], (life, ran)
                assert ran.code == agent["exit"]["shell_code"], (life, ran, agent["exit"])
                return
            assert ran.code == FAILED, (life, ran)
            assert self.record.kills > before, (life, ran)
            if there.code == 0:
                return
            self.record.asked_again += 1
        raise AssertionError(f"{life} cannot be started: {ran}")

    def meanwhile(self, life: Life) -> None:
        """What is done to it while it runs; it may have ended by a kill at any point."""
        ended = ("not running", "is exited", "not paused", "is stopping")
        if life.kind == "killed":
            self.ask("kill", life.name, unless=ended)
        if life.kind == "stopped":
            self.until(life, lambda: "ready" in self.aos("logs", life.name, check=False).out)
            self.ask("stop", "--time", "30", life.name)
        if life.kind == "paused":
            self.ask("pause", life.name, unless=ended)
            [agent] = self.ask_json("inspect", life.name)
            assert agent["status"] in ("paused", "exited"), (life, agent)
            self.ask("unpause", life.name, unless=ended)
        if life.kind == "executing":
            self.execute(life)
            self.ask("kill", life.name, unless=ended)

    def execute(self, life: Life) -> None:
        """A command in it ends with its code, or something was killed that it needs."""
        before = self.record.kills
        done = self.aos("exec", life.name, "sh", "-c", f"sleep {life.seconds}; exit 7", check=False)
        [agent] = self.ask_json("inspect", life.name)
        if done.code != 7:
            assert self.record.kills > before or agent["status"] == "exited", (life, done)
            trouble = self.record.troubles[agent["sandbox"]]
            known = {LOST, FAILED} | ({137} if trouble or trouble.exec else set())
            assert done.code in known, (life, done, trouble)

    def until(self, life: Life, done: Callable[[], bool]) -> None:
        """Wait for something that it does, or for its end."""
        while not done() and not self.exit_of(life):
            time.sleep(0.01)

    # Asking.

    def ask(self, *words: str, unless: tuple[str, ...] = ()) -> Result:
        """Run a command, again when a kill came in between; `unless`: what an error says when there is no need."""
        for _ in range(PATIENCE):
            before = self.record.kills
            result = self.aos(*words, check=False)
            if result.code == 0 or any(words in result.err for words in unless):
                return result
            assert result.code == AGAIN or self.record.kills > before, (words, result)
            self.record.asked_again += 1
        raise AssertionError(f"{words}: {result}")

    def ask_json(self, *words: str) -> Any:
        return json.loads(self.ask(*words).out)

    def mark(self, life: Life) -> Path:
        """What an agent writes first: there when its process ran."""
        return self.marks / life.name

    def exit_of(self, life: Life) -> dict[str, Any]:
        [agent] = self.ask_json("inspect", life.name)
        self.record.agents.add(agent["agent"])
        return agent["exit"] or {}

    # Judging.

    def judge(self, life: Life) -> None:
        """The record of each of its processes must be true, and as many have run as have left a mark."""
        [agent] = self.ask_json("inspect", life.name)
        processes = agent["processes"]
        ran = self.mark(life).read_text().count("\n") if self.mark(life).exists() else 0
        certain = possible = 0
        for process in processes:
            exit, trouble = process["exit"], self.record.troubles[process["sandbox"]]
            never = exit["cause"] == "lost" and not trouble.conmon
            assert life.is_true(exit, trouble, ran >= len(processes)), (life, process, trouble, ran)
            certain += exit["cause"] == "exited" and "could not be started" not in exit["detail"]
            possible += not never
            if trouble:
                self.record.ends[exit["cause"]] += 1
        assert certain <= ran <= possible, (life, processes, ran)
        if life.restarts:
            assert agent["exit"]["code"] == 0 or len(processes) == 1, (life, agent)

    def account(self) -> None:
        """Every agent that was not removed is listed, and no other; then remove them."""
        listed = {agent["name"]: agent for agent in self.aos("ps", "-a", "-o", "json").json}
        assert set(listed) == set(self.kept)
        for life in self.kept.values():
            self.judge(life)
        if listed:
            self.aos("rm", *listed)


@dataclass(frozen=True, slots=True)
class Belongings:
    """All that an installation and its host have: counted before and after."""

    files: frozenset[str]
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
    aos("node", "stop")
    before = Belongings.of(world)
    one = Campaign(aos, kills, seed)
    record = one.run()
    shutil.rmtree(one.marks)
    aos("node", "stop")
    deadline = time.monotonic() + SETTLE  # files of a sandbox go after the answer
    while left := before.difference(Belongings.of(world)) + namespaces_in(record.namespaces):
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
