"""A place to build: an installation whose store holds `busybox:1`, and contexts to build from.

builder     `builder(files, steps…)` writes a context and an Agentfile, builds it, and answers with a `Built`
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fix_installation import Installation, Result, requires_root
from traces import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Builder", "builder", "write_context"]


def write_context(directory: Path, files: Mapping[str, str | bytes]) -> Path:
    """Files by path; a text that begins with `-> ` is a link's target."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_bytes(content)
    return directory


@dataclass(frozen=True, slots=True)
class Builder:
    aos: Installation
    contexts: Path

    def context(
        self,
        files: Mapping[str, str | bytes] | None = None,
        steps: Sequence[object] = (),
        *,
        base: str = "busybox:1",
        name: str = "context",
        **fields: object,
    ) -> Path:
        """Write a context with an Agentfile (JSON is YAML)."""
        definition: dict[str, Any] = {
            "apiVersion": "aos.io/v1",
            "kind": "AgentPackage",
            "metadata": {"name": "it", "version": "1.0.0"},
            "from": base,
            "steps": list(steps),
            "entrypoint": {"command": ["/bin/sh"]},
            **fields,
        }
        directory = write_context(self.contexts / name, files or {})
        (directory / "Agentfile").write_text(json.dumps(definition, indent=1))
        return directory

    def build(self, context: Path, *words: str | Path, check: bool | int = True) -> Result:
        return self.aos("build", "--progress", "plain", *words, context, check=check)

    def layout(self, context: Path, *words: str | Path) -> Path:
        """Build, and write the package as an OCI layout."""
        out = self.contexts / f"{context.name}.layout"
        self.build(context, "-o", out, *words)
        return out

    def unpack(self, context: Path) -> Path:
        """Build, and unpack the image with umoci: the root file system as a peer sees it."""
        import subprocess

        layout = self.layout(context)
        bundle = self.contexts / f"{context.name}.bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        subprocess.run(
            ["umoci", "unpack", "--image", f"{layout}:1.0.0", str(bundle)], check=True, capture_output=True
        )
        return bundle / "rootfs"

    def left_over(self) -> list[str]:
        """What builds have left in their work directory."""
        work = self.aos.root / "build/work"
        return sorted(path.name for path in work.iterdir()) if work.exists() else []


@pytest.fixture
def builder(busybox_root: Path, installation: Installation, tmp_path: Path) -> Iterator[Builder]:
    """Afterwards nothing of the builds may be left on the host."""
    requires_root()
    shutil.copytree(busybox_root, installation.root, symlinks=True)
    before = Traces.of(installation.config)
    made = Builder(installation, tmp_path)
    yield made
    assert made.left_over() == []
    for group in Traces.of(installation.config).cgroups:
        with contextlib.suppress(
            OSError
        ):  # the installation's own may stay; it goes only when nothing is in it
            Path(group).rmdir()
    Traces.of(installation.config).settle(installation.config, before)
