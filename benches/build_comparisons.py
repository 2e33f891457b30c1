"""What people wait for when they build: nothing changed, a line of code changed, many files, large files."""

from __future__ import annotations

import itertools
import json
import random
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benches.measure import Command, interleave
from benches.ours import Installation
from benches.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benches.outcome import Contenders

__all__ = [
    "code_only",
    "copy_large_files",
    "copy_small_files",
    "two_stages",
    "unchanged",
    "unchanged_example",
]

EXAMPLES = Path(__file__).parent.parent / "examples"
PEAK_MIB = 200
"""What a build may have resident, whatever it builds."""

DEPENDENCIES = (
    "annotated-types anyio attrs certifi charset-normalizer click filelock fsspec h11 httpcore httpx idna jinja2"
    " jsonschema jsonschema-specifications markdown-it-py markupsafe mdurl packaging platformdirs pydantic"
    " pydantic-core pygments python-dateutil python-dotenv pytz pyyaml referencing requests rich rpds-py six"
    " sniffio tenacity tomlkit tqdm typing-extensions tzdata urllib3 zipp"
)
"""Forty, as an agent comes by them."""


def unchanged(contenders: Contenders, rounds: int) -> Outcome:
    """A context of 10,000 files that nobody touched since the last build, beside buildah's cache."""
    context = _small_files(contenders)
    ours = contenders.ours
    ours.call("build", "-q", str(context))
    series = interleave(
        [
            Command("aos build, unchanged", ours.argv("build", "-q", str(context)), ours.environ),
            Command("buildah bud, unchanged", contenders.buildah.build(context)),
        ],
        max(5, rounds // 10),
        warm_up=1,
    )
    outcome = Outcome(series=series)
    outcome.at_most_ms("unchanged build, 10,000 files", series[0].seconds, 250)
    outcome.at_most_ratio("unchanged build, 10,000 files", series[0], series[1], 0.3)
    return outcome


def unchanged_example(contenders: Contenders, rounds: int) -> Outcome:
    """`aos build examples/mcp-git` when nothing has changed: mostly the interpreter's start."""
    ours = contenders.ours
    argv = ours.argv("build", "-q", str(EXAMPLES / "mcp-git"))
    ours.call(*argv[1:])
    [series] = interleave([Command("aos build mcp-git, unchanged", argv, ours.environ)], max(5, rounds // 3))
    outcome = Outcome(series=[series])
    outcome.at_most_ms("unchanged build of examples/mcp-git", series.seconds, 150)
    return outcome


def code_only(contenders: Contenders, rounds: int) -> Outcome:
    """One line of a Python agent's code changed; its forty dependencies did not."""
    ours, context = contenders.ours, contenders.home / "agent"
    debian = {"plugin": {"name": "debian", "with": {"suite": "bookworm", "include": ["python3"]}}}
    code = {"copy": {"src": "main.py", "dest": "/app/"}}
    _context(context, [debian, {"install": {"pip": DEPENDENCIES.split()}}, code])
    edits = itertools.count()

    def edit() -> None:
        (context / "main.py").write_text(f"print({next(edits)})\n")

    edit()
    argv = ours.argv("build", "-q", str(context))
    ours.call(*argv[1:])
    [series] = interleave(
        [Command("aos build, code changed", argv, ours.environ, before=edit)], max(5, rounds // 5)
    )
    outcome = Outcome(series=[series])
    outcome.at_most_ms("code-only rebuild, 40 dependencies", series.seconds, 1000)
    return outcome


def copy_small_files(contenders: Contenders, rounds: int) -> Outcome:
    """10,000 small files become a layer, from an empty store."""
    context = _small_files(contenders)
    ours = Installation(contenders.home / "cold")
    series = interleave(
        [
            _cold(ours, context, "aos build, 10,000 files"),
            Command(
                "buildah bud, 10,000 files",
                contenders.buildah.build(context, "--no-cache"),
            ),
        ],
        max(3, rounds // 20),
        warm_up=1,
    )
    outcome = Outcome(series=series)
    outcome.at_most_ms("copy of 10,000 files, cold", series[0].seconds, 1000)
    outcome.at_most_ratio("copy of 10,000 files, cold", series[0], series[1], 0.15)
    outcome.at_most_mib("copy of 10,000 files, peak memory", max(series[0].resident), PEAK_MIB)
    return outcome


def copy_large_files(contenders: Contenders, rounds: int) -> Outcome:
    """1 GiB in four files becomes a layer, beside the same done by hand: both digests, isal's level 1."""
    context = contenders.home / "large"
    _context(context, [{"copy": {"src": "files", "dest": "/files"}}])
    source = random.Random(1)
    (context / "files").mkdir()
    for name in range(4):
        with (context / "files" / str(name)).open("wb") as file:
            for number in range(256):  # half noise, half text
                file.write(source.randbytes(1 << 19))
                file.write((b"a line of text %9d\n" % number * (1 << 15))[: 1 << 19])
    ours = Installation(contenders.home / "cold")
    blob, python = contenders.home / "by-hand", shlex.quote(sys.executable)
    script = (
        f"set -o pipefail; tar -C {shlex.quote(str(context))} -cf - files | tee >(sha256sum >&2)"
        f" | {python} -m isal.igzip -1 -c | tee >(sha256sum >&2) > {shlex.quote(str(blob))}"
    )
    series = interleave(
        [
            _cold(ours, context, "aos build, 1 GiB"),
            Command("tar | sha256sum | igzip", ("bash", "-c", script)),
        ],
        max(3, rounds // 20),
        warm_up=1,
    )
    shutil.rmtree(context)
    outcome = Outcome(series=series)
    outcome.at_most_ratio("copy of 1 GiB, cold", series[0], series[1], 1.3)
    outcome.at_most_mib("copy of 1 GiB, peak memory", max(series[0].resident), PEAK_MIB)
    return outcome


def two_stages(contenders: Contenders, rounds: int) -> Outcome:
    """Two stages of five seconds that do not need each other."""
    ours, context = contenders.ours, contenders.home / "stages"
    names = ("one", "two")
    stages = [
        {"name": name, "from": "busybox:1", "steps": [{"run": f"/bin/sleep 5; echo {name} > /{name}"}]}
        for name in names
    ]
    copies = [{"copy": {"from": name, "src": f"/{name}", "dest": "/"}} for name in names]
    _context(context, copies, stages=stages)
    argv = ours.argv("build", "-q", "--no-cache", str(context))
    [series] = interleave(
        [Command("aos build, two stages", argv, ours.environ)], max(3, rounds // 30), warm_up=0
    )
    outcome = Outcome(series=[series])
    outcome.at_most_ms("two independent stages of 5 s", series.seconds, 5500)
    return outcome


def _cold(ours: Installation, context: Path, name: str) -> Command:
    """A build that knows nothing from before."""

    def forget() -> None:
        shutil.rmtree(ours.home, ignore_errors=True)

    return Command(name, ours.argv("build", "-q", str(context)), ours.environ, before=forget)


def _small_files(contenders: Contenders) -> Path:
    """A context of 10,000 files of 4 KiB in a hundred directories, for us and for buildah."""
    context = contenders.home / "small"
    if context.exists():
        return context
    _context(context, [{"copy": {"src": "files", "dest": "/files"}}])
    (context / "Dockerfile").write_text("FROM scratch\nCOPY files /files\n")
    source = random.Random(1)
    for number in range(10_000):
        file = context / f"files/{number // 100}/{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source.randbytes(1000) + b"some text that compresses\n" * 119)
    return context


def _context(context: Path, steps: Sequence[Mapping[str, object]], **fields: object) -> None:
    """A context with an Agentfile."""
    context.mkdir()
    definition = {
        "apiVersion": "aos.io/v1",
        "kind": "AgentPackage",
        "metadata": {"name": context.name, "version": "1.0.0"},
        "from": "scratch",
        "steps": list(steps),
        "entrypoint": {"command": ["/main"]},
        **fields,
    }
    (context / "Agentfile").write_text(json.dumps(definition))
