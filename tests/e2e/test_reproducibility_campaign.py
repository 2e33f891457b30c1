"""One digest in every circumstance: all examples, and Agentfiles generated from a seed.

`make campaign` builds everything in four circumstances, each with a store of its own that is filled from nothing, and
writes what came of it to benches/results; the default suite builds three generated ones in two.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentfile_making import make_context
from aos.config import Config
from aos.content.store import ContentStore
from aos.package import load_package
from aos.package.difference import package_differences
from circumstances import HERE, THERE, WHEREVER, Circumstance
from fix_installation import REPOSITORY, Installation, new_installation, requires, requires_root
from fix_python import write_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.oci.digest import Digest

pytestmark = pytest.mark.root

RESULTS = REPOSITORY / "benches/results"
EXAMPLES = sorted(file.parent for file in (REPOSITORY / "examples").glob("*/Agentfile"))
GENERATED = 20


@dataclass(slots=True)
class Place:
    """A circumstance with an installation and a directory of its own."""

    where: Circumstance
    installation: Installation
    directory: Path
    environ: dict[str, str] = field(default_factory=dict)

    def build(self, context: Path, *words: str) -> str:
        checkout = self.where.checkout(context, self.directory / context.name)
        return self.where.build(self.installation, checkout, *words, environ=self.environ)


@contextmanager
def place(where: Circumstance, busybox: Path, number: int) -> Iterator[Place]:
    """Everything that can be somewhere else, with names that are awkward and of different lengths."""
    installation = new_installation()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, installation.root.parent)
        directory = installation.root.parent / ("ü place " * number or "p")
        if where.memory:
            memory = Path(tempfile.mkdtemp(prefix="aos-", dir="/dev/shm"))
            stack.callback(shutil.rmtree, memory)
            directory = memory / "contexts"
            installation = Installation(Config(root=memory / "root", state=installation.state))
        directory.mkdir()
        shutil.copytree(busybox, installation.root, symlinks=True)
        wheels = installation.root.parent / "wheels"  # pip cuts PIP_FIND_LINKS at blanks
        write_wheel(wheels, "outer", "1.0", "inner", command=True)
        write_wheel(wheels, "inner", "1.0", command=True)
        environ = {
            "PIP_FIND_LINKS": str(wheels),
            "UV_NO_CONFIG": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "protocol.file.allow",
            "GIT_CONFIG_VALUE_0": "always",
        }
        yield Place(where, installation, directory, environ)


def compare(places: list[Place], context: Path, *words: str) -> tuple[str, list[str]]:
    """What a context gives in the first place, and what is different in the others."""
    digests = [each.build(context, *words) for each in places]
    different: list[str] = []
    for each, digest in zip(places[1:], digests[1:], strict=True):
        if digest != digests[0]:
            found = package_differences(_package(places[0], digests[0]), _package(each, digest))
            different += [f"{context.name}: {places[0].where} and {each.where}: {digests[0]} and {digest}"]
            different += [line for one in found for line in one.lines()]
    return digests[0], different


def _package(there: Place, digest: str) -> Any:
    blobs = ContentStore(there.installation.root / "content").blobs
    return load_package(blobs, _digest(digest)), blobs


def _digest(text: str) -> Digest:
    from aos.oci.digest import Digest

    return Digest(text)


def _repository(directory: Path) -> str:
    """A bare repository of two commits; its address is the same for all."""
    names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {"PATH": os.environ["PATH"], "HOME": str(directory), **names}
    work = directory / "work"
    work.mkdir(parents=True)
    (work / "f").write_text("x")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=work, env=environ, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, directory / "it.git"], env=environ, check=True)
    return f"file://{directory}/it.git"


@pytest.mark.timeout(120)
def test_three_generated_agentfiles_in_two_circumstances(busybox_root: Path, tmp_path: Path) -> None:
    requires_root()
    requires("faketime", "git")
    kinds: set[str] = set()
    dice, repository = random.Random(0), _repository(tmp_path / "repository")
    with ExitStack() as stack:
        places = [
            stack.enter_context(place(where, busybox_root, number))
            for number, where in enumerate((HERE, THERE))
        ]
        for number in range(3):
            directory = tmp_path / f"made-{number}"
            context, made = make_context(directory, dice, number, python=False, repository=repository)
            kinds |= made
            assert compare(places, context)[1] == []
    assert kinds == {"args", "copy", "copy from", "extends", "git", "mounts", "run"}


@pytest.mark.campaign
@pytest.mark.network
@pytest.mark.timeout(3600)
def test_all_examples_and_twenty_generated_agentfiles_in_four_circumstances(
    busybox_root: Path, tmp_path: Path
) -> None:
    requires_root()
    requires("faketime", "git", "mmdebstrap")
    seed = int(os.environ.get("CAMPAIGN_SEED", time.strftime("%Y%m%d")))
    begin, dice = time.monotonic(), random.Random(seed)
    digests: dict[str, str] = {}
    differences: list[str] = []
    kinds: Counter[str] = Counter()
    repository = _repository(tmp_path / "repository")
    with ExitStack() as stack:
        places = [
            stack.enter_context(place(where, busybox_root, number)) for number, where in enumerate(WHEREVER)
        ]
        for example in EXAMPLES:
            digests[example.name], found = compare(places, example)
            differences += found
        for number in range(GENERATED):
            context, made = make_context(
                tmp_path / f"made-{number}", dice, number, python=number % 2 == 0, repository=repository
            )
            kinds.update(made)
            compression = dice.choice(["gzip", "zstd", "none"])
            digests[context.name], found = compare(places, context, "--compression", compression)
            differences += found
    assert not differences, "\n".join(differences)
    assert len(set(digests.values())) == len(digests)
    result = {
        "seed": seed,
        "circumstances": [
            {"clock": one.clock, "umask": f"{one.umask:04o}", **one.environ, "order": one.order}
            | {"owner": one.owner, "jobs": one.jobs, "store": "memory" if one.memory else "disk"}
            for one in WHEREVER
        ],
        "builds": len(digests) * len(WHEREVER),
        "kinds": dict(sorted(kinds.items())),
        "digests": digests,
        "differences": 0,
        "seconds": round(time.monotonic() - begin, 1),
    }
    file = RESULTS / f"{time.strftime('%Y-%m-%d', time.gmtime())}-reproducibility.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
