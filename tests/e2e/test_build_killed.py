"""A build is killed at random moments, and so are two at once; the next one succeeds and ends at the same digest.

Afterwards `aos prune` must leave nothing of the killed ones: no mount, process, directory, lock or blob. `make
campaign` kills 100 and writes what happened to benches/results; the default suite kills 5.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fix_installation import end_process

if TYPE_CHECKING:
    from fix_installation import Installation

pytestmark = pytest.mark.root

RESULTS = Path(__file__).parents[2] / "benches/results"
FILES = 300
LARGE = 8 << 20  # bytes


@dataclass(slots=True)
class Record:
    kills: int = 0
    too_late: int = 0
    """Builds that had ended when their time came."""
    after: Counter[str] = field(default_factory=Counter)
    """What the killed builds had said last."""


class Campaign:
    """One context whose build takes about two seconds: many files, a large one, commands, two stages at once."""

    def __init__(self, aos: Installation, kills: int, seed: int) -> None:
        self.aos = aos
        self.kills = kills
        self.dice = random.Random(seed)
        self.record = Record()
        self.context = aos.root.parent / "context"
        self.cache = aos.root.parent / "shared-cache"

    def run(self) -> Record:
        self.write_context()
        began = time.monotonic()
        wanted = self.build()
        longest = time.monotonic() - began
        while self.record.kills < self.kills:
            self.forget()
            while self.record.kills < self.kills and self.killed(self.dice.uniform(0.05, longest)):
                pass  # the next one begins where this one was killed
            assert self.build() == wanted
        return self.record

    def write_context(self) -> None:
        files = self.context / "files"
        files.mkdir(parents=True)
        for number in range(FILES):
            (files / f"{number}.txt").write_text(f"{number}\n" * 50)
        (self.context / "large").write_bytes(self.dice.randbytes(LARGE))
        definition: dict[str, Any] = {
            "apiVersion": "aos.io/v1",
            "kind": "AgentPackage",
            "metadata": {"name": "killed", "version": "1.0.0"},
            "stages": [
                {
                    "name": "one",
                    "from": "busybox:1",
                    "steps": [
                        {"copy": {"src": "files", "dest": "/files/"}},
                        {
                            "run": {
                                "command": "cat /files/* > /cache/all; cp /cache/all /one",
                                "cache": [{"target": "/cache"}],
                            }
                        },
                    ],
                },
                {
                    "name": "two",
                    "from": "busybox:1",
                    "steps": [
                        {"copy": {"src": "large", "dest": "/"}},
                        {"run": "sleep 0.3; sha256sum /large > /two; rm /large"},
                    ],
                },
            ],
            "from": "busybox:1",
            "steps": [
                {"copy": {"from": "one", "src": "/one", "dest": "/"}},
                {"copy": {"from": "two", "src": "/two", "dest": "/"}},
                {"run": "cat /one /two > /three"},
            ],
            "entrypoint": {"command": ["/bin/sh"]},
        }
        (self.context / "Agentfile").write_text(json.dumps(definition))

    def words(self) -> list[str]:
        return ["build", "--progress", "plain", "--cache-to", str(self.cache), str(self.context)]

    def build(self) -> str:
        return self.aos(*self.words()).out

    def forget(self) -> None:
        """Let the next build execute everything; what others have built stays."""
        self.aos("cache", "prune", "--filter", "package=killed")

    def killed(self, seconds: float) -> bool:
        """Kill a build after some time, sometimes two of them at once; False when one had ended before."""
        count = self.dice.choice((1, 1, 2))
        processes = [
            subprocess.Popen(
                self.aos.command(*self.words()),
                env=self.aos.environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for _ in range(count)
        ]
        time.sleep(seconds)
        alive = True
        for process in processes:
            if process.poll() is None:
                end_process(process.pid)
            _, err = process.communicate(timeout=30)
            if process.returncode == -9:
                self.record.kills += 1
                self.record.after[_last_words(err.decode(errors="replace"))] += 1
            else:
                assert process.returncode == 0, err
                self.record.too_late += 1
                alive = False
        return alive


def _last_words(err: str) -> str:
    """What kind of thing a build said last."""
    lines = err.splitlines()
    if not lines:
        return "nothing"
    for word in ("cached", "done in", "another build", "exported", "built"):
        if word in lines[-1]:
            return word
    return "working"


def left_behind(aos: Installation) -> list[str]:
    """Files of killed builds; the fixture `aos` looks for mounts, cgroups and processes."""
    build, content = aos.root / "build", aos.root / "content"
    places = [build / "work", build / "locks", content / "ingest", aos.root / "sandboxes/oci"]
    found = [str(path) for place in places if place.exists() for path in place.iterdir()]
    found += [str(path) for path in build.rglob(".new-*")]
    return found + [str(path) for path in (content / "snapshots").glob(".*")]


def blobs(aos: Installation) -> set[str]:
    return {file.name for file in (aos.root / "content/blobs/sha256").iterdir()}


def nothing_is_left(aos: Installation, before: set[str]) -> None:
    """After `aos prune` there are no leftovers, and without the package and its results no blob of them."""
    aos("prune", "-f")
    assert left_behind(aos) == []
    aos("verify", "killed:1.0.0")
    aos("packages", "rm", "killed:1.0.0")
    aos("cache", "prune", "--filter", "package=killed")
    aos("prune", "-f")
    assert blobs(aos) == before


@pytest.mark.timeout(180)
def test_five_kills(aos: Installation) -> None:
    before = blobs(aos)
    record = Campaign(aos, kills=5, seed=5).run()
    assert record.kills >= 5
    nothing_is_left(aos, before)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_hundred_kills(aos: Installation) -> None:
    seed = int(os.environ.get("CAMPAIGN_SEED", time.strftime("%Y%m%d")))
    begin = time.monotonic()
    before = blobs(aos)
    record = Campaign(aos, kills=100, seed=seed).run()
    nothing_is_left(aos, before)
    result = {
        "seed": seed,
        "kills": record.kills,
        "builds_that_had_ended": record.too_late,
        "killed_after": dict(sorted(record.after.items())),
        "other_digests": 0,
        "left_behind": 0,
        "seconds": round(time.monotonic() - begin, 1),
    }
    print(json.dumps(result))
    file = RESULTS / f"{time.strftime('%Y-%m-%d', time.gmtime())}-build-campaign.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
