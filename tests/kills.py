"""A campaign: agents live through what lives.py draws, several at once, while their host kills; each end is judged."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fix_installation import end_process
from lives import KINDS, LOST, POOLED, Life, Trouble
from traces import SETTLE, namespaces_of
from victims import VICTIMS, Victim, victims

if TYPE_CHECKING:
    from collections.abc import Callable

    from fix_installation import Installation, Result

__all__ = ["Campaign", "Record"]

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
        self.aos("pool", "set", "--size", "2", "busybox:1", "-c", POOLED)
        dice = random.Random(self.seed)
        with ThreadPoolExecutor(WORKERS + 1) as threads:
            work = [
                threads.submit(self.work, worker, random.Random(dice.random())) for worker in range(WORKERS)
            ]
            killer = threads.submit(self.kill, random.Random(dice.random()))
            for one in (killer, *work):
                one.result()
        self.account()
        self.aos("pool", "rm", "busybox:1")
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
        if exit["cause"] == "lost" and not self.runs(life, exit):
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
        words = ["run", *life.options, "--name", life.name]
        words += [] if life.kind == "pooled" else ["-v", f"{self.marks}:/marks"]
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
            there = self.ask("inspect", life.name, unless=("no agent",))
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

    def runs(self, life: Life, exit: dict[str, Any]) -> int:
        """How often its processes ran, as they wrote first of all; `exit`: of the only one, where it has no mark."""
        if life.kind == "pooled":
            return int("ran" in exit["tail"])
        mark = self.marks / life.name
        return mark.read_text().count("\n") if mark.exists() else 0

    def exit_of(self, life: Life) -> dict[str, Any]:
        [agent] = self.ask_json("inspect", life.name)
        self.record.agents.add(agent["agent"])
        return agent["exit"] or {}

    # Judging.

    def judge(self, life: Life) -> None:
        """The record of each of its processes must be true, and as many have run as have left a mark."""
        [agent] = self.ask_json("inspect", life.name)
        processes = agent["processes"]
        ran = self.runs(life, agent["exit"])
        certain = possible = 0
        for process in processes:
            exit, trouble = process["exit"], self.record.troubles[process["sandbox"]]
            never = exit["cause"] == "lost" and not trouble.conmon
            self.nobody_lives_on(process["sandbox"])
            assert life.is_true(exit, trouble, ran >= len(processes)), (life, process, trouble, ran)
            certain += exit["cause"] == "exited" and "could not be started" not in exit["detail"]
            possible += not never
            if trouble:
                self.record.ends[exit["cause"]] += 1
        assert certain <= ran <= possible, (life, processes, ran)
        if life.restarts:
            assert agent["exit"]["code"] == 0 or len(processes) == 1, (life, agent)

    def nobody_lives_on(self, sandbox: str) -> None:
        """What has an exit record has no process any more; what was killed for it may take a moment."""
        deadline = time.monotonic() + SETTLE
        while (left := self.processes_of(sandbox)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, (sandbox, left)

    def processes_of(self, sandbox: str) -> set[str]:
        group = f"{self.aos.config.installation}/{sandbox}/payload/cgroup.procs"
        found: set[str] = set()
        for tree in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            with contextlib.suppress(OSError):
                found |= set((tree / group).read_text().split())
        return found

    def account(self) -> None:
        """Every agent that was not removed is listed, and no other; then remove them."""
        listed = {agent["name"]: agent for agent in self.aos("ps", "-a", "-o", "json").json}
        assert set(listed) == set(self.kept)
        for life in self.kept.values():
            self.judge(life)
        if listed:
            self.aos("rm", *listed)
