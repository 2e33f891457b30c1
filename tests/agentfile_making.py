"""Makes contexts with Agentfiles from a seed: every kind of step, in orders and with options nobody would write."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Made", "make_context"]

_NAMES = ("a.txt", "B.txt", "ä.txt", "z z.md", "run.sh", "I.txt", "ß.log", "0", "data-1.bin", "data-2.bin")
_IGNORED = ("**/*.log\n", "*.md\n!deep/**\n", "data-[0-1]*\n# nothing\n**/0\n", "")
_OWNERS = ("0:0", "1000", "7:8", "nobody", "root:nogroup")


@dataclass(slots=True)
class Made:
    """One context in the making."""

    dice: random.Random
    number: int
    repository: str
    """The address of a git repository."""
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    """What it is made of, for the record."""


def make_context(
    directory: Path, dice: random.Random, number: int, *, python: bool, repository: str = ""
) -> tuple[Path, set[str]]:
    """Write a context; what kinds of steps it has. It stands on `hello:1.0.0` (with `python`) or `busybox:1`.

    `repository`: what the plugin `git` may fetch; "": that it is not used."""
    made = Made(dice, number, repository)
    _tree(made)
    palette = _PYTHON if python else _ANY
    if repository:
        palette = (*palette, _git)
    base = "hello:1.0.0" if python else "busybox:1"
    for name in ("one", "two", "three")[: dice.randrange(4)]:
        below = dice.choice([base, *(stage["name"] for stage in made.stages)])
        steps = [dice.choice(palette)(made) for _ in range(dice.randrange(1, 4))]
        made.stages.append({"name": name, "from": below, "steps": steps})
    steps = [dice.choice(palette)(made) for _ in range(dice.randrange(2, 6))]
    for always in (_copy, _copy_from):
        steps.insert(dice.randrange(len(steps) + 1), always(made))
    document: dict[str, Any] = {
        "metadata": {"name": f"made-{number}", "version": "1.0.0", "labels": {"ü": "ß", "I": "i"}},
        "args": {"WHO": "somebody"},
        "stages": made.stages,
        "config": {"env": {"B": "2", "A": "1"}, "workDir": "/work"},
        "entrypoint": {"command": ["/bin/sh"]},
    }
    own = {"from": dice.choice([base, *(stage["name"] for stage in made.stages)]), "steps": steps}
    if number % 3 == 1:
        made.kinds.add("extends")
        parent = {**document, **own}
        made.files["parent.yaml"] = _agentfile(parent)
        last = {"run": "echo of the child > /child"}
        document = {"metadata": document["metadata"], "extends": "./parent.yaml", "steps": [last]}
        own = {}
    made.files["Agentfile"] = _agentfile({**document, **own})
    directory.mkdir(parents=True)
    for path, data in made.files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
        if path.endswith(".sh"):
            (directory / path).chmod(0o755)
    for path, target in made.links.items():
        (directory / path).symlink_to(target)
    return directory, made.kinds


def _agentfile(document: dict[str, Any]) -> bytes:
    return json.dumps({"apiVersion": "aos.io/v1", "kind": "AgentPackage", **document}, indent=1).encode()


def _tree(made: Made) -> None:
    dice = made.dice
    for place in ("src", "src/deep", "src/deep/er", "Ünder"):
        for name in dice.sample(_NAMES, dice.randrange(2, len(_NAMES))):
            made.files[f"{place}/{name}"] = dice.randbytes(dice.choice([0, 1, 100, 70_000]))
    made.files["src/run.sh"] = b"#!/bin/sh\necho hi\n"
    made.links["src/link"] = dice.choice(["run.sh", "deep", "/etc/passwd", "nowhere"])
    if ignored := dice.choice(_IGNORED):
        made.files[dice.choice([".dockerignore", ".aosignore"])] = ignored.encode()


def _copy(made: Made) -> dict[str, Any]:
    made.kinds.add("copy")
    dice = made.dice
    step: dict[str, Any] = {
        "src": dice.choice(["src", "src/**/*.sh", ["src/deep*", "Ünder"], ".", "src/*", "src/run.sh"]),
        "dest": f"/copied-{dice.randrange(3)}/",
    }
    if dice.random() < 0.5:
        step["owner"] = dice.choice(_OWNERS)
    if dice.random() < 0.4:
        step["mode"] = dice.choice(["0640", "0755", "4711", "0400"])
    return {"copy": step}


def _copy_from(made: Made) -> dict[str, Any]:
    if not made.stages:
        return _copy(made)
    made.kinds.add("copy from")
    name = made.dice.choice(made.stages)["name"]
    return {"copy": {"from": name, "src": "/etc/p*", "dest": f"/from-{name}/", "owner": "nobody"}}


def _run(*commands: str) -> Callable[[Made], dict[str, Any]]:
    def step(made: Made) -> dict[str, Any]:
        made.kinds.add("run")
        return {"run": made.dice.choice(commands)}

    return step


_work = _run(
    "mkdir -p /made/deep && date > /made/when && rm /made/when && touch /made/now && ln -f /made/now /made/hard",
    "mkdir -p /d && for i in z A ä a Z 0; do echo $i > /d/$i; done && ls /d > /listed && chmod 1777 /d",
    "rm -rf /etc/passwd- /copied-0 && mkdir -p /copied-0 && echo new > /copied-0/new && chown -R 5:6 /copied-0",
    "mkfifo -m 600 /fifo-$$ && mv /fifo-$$ /fifo; ln -sf /fifo /link; umask > /umask; mkdir -p /tmp/x",
    "cat /proc/1/comm > /dev/null; echo a | gzip -n > /a.gz; (cd /etc && tar cf - group | cat > /dev/null)",
    "mkdir -p /w && (echo 1 > /w/1 & echo 2 > /w/2 & echo 3 > /w/3 & wait) && echo $HOSTNAME > /host",
    "id > /id; pwd > /pwd; env | sort | grep -v ^SHLVL > /env; hostname >> /id; touch -d '2001-01-01 00:00:00' /old",
)


def _argument(made: Made) -> dict[str, Any]:
    made.kinds.add("args")
    return {"run": {"command": "echo ${{ args.WHO }} $X > /who", "env": {"X": "${{ args.WHO }}!"}}}


def _mounts(made: Made) -> dict[str, Any]:
    made.kinds.add("mounts")
    mounts: list[dict[str, str]] = [{"target": "/mnt/context", "source": "src"}]
    if made.stages:
        mounts.append({"target": "/mnt/stage", "from": made.dice.choice(made.stages)["name"], "source": "/"})
    command = "cp /mnt/context/run.sh /run-copied && stat -c '%n %a %u:%g %Y' /mnt/context/* > /mounted && date > /cache/now"
    return {"run": {"command": command, "mounts": mounts, "cache": [{"target": "/cache"}]}}


def _git(made: Made) -> dict[str, Any]:
    made.kinds.add("git")
    keep = {"git": True} if made.dice.random() < 0.5 else {}
    return {"plugin": {"name": "git", "with": {"url": made.repository, "dest": "/fetched", **keep}}}


def _pip(made: Made) -> dict[str, Any]:
    made.kinds.add("install pip")
    if made.dice.random() < 0.5:
        return {"install": {"pip": ["outer"], "network": False}}
    made.files["needs/requirements.txt"] = b"-r more.txt\nouter\n"
    made.files["needs/more.txt"] = b"inner==1.0\n"
    return {"install": {"pip": {"requirements": "needs/requirements.txt"}, "network": False}}


def _apt(made: Made) -> dict[str, Any]:
    made.kinds.add("install apt")
    return {"install": {"apt": [made.dice.choice(["bc", "less"])]}}


_python = _run(
    'mkdir -p /app && echo \'A = {1, 2, "x"}; B = (1.5, "y")\' > /app/m.py && python3 -m compileall -q /app',
    "useradd -m agent && id agent > /agent",
    "ldconfig && python3 -c 'import json, decimal'",
    "update-alternatives --install /usr/bin/it it /bin/true 5 && dpkg --get-selections > /selections",
    "python3 -c \"import tarfile; tarfile.open('/t.tar', 'w').close()\" && touch /etc/ld.so.conf.d/x.conf && ldconfig",
)
_ANY: tuple[Callable[[Made], dict[str, Any]], ...] = (_copy, _copy_from, _work, _work, _argument, _mounts)
_PYTHON: tuple[Callable[[Made], dict[str, Any]], ...] = (*_ANY, _pip, _python, _python, _apt)
