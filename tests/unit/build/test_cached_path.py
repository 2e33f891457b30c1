"""What an unchanged build imports: nothing that only executing needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"
EXECUTING = {
    "asyncio",
    "ctypes",
    "isal",
    "logging",
    "subprocess",
    "tomllib",
    "zstandard",
    "aos.build.solve.execute",
}


def test_an_unchanged_build_imports_nothing_that_executes() -> None:
    code = "import sys, aos.cli.build, aos.build, aos.compose.builds; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & EXECUTING == set()
