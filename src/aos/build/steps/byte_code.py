"""Byte code for what pip installed: the same bytes every time, so that agents need not make it at every start.

A sandbox begins with the image's files alone: without byte code in the image, every start of an agent compiles all
it imports (decision 0027). One process of the target's interpreter compiles all files in order, with hashing fixed.
Files are checked by the hash of their source, not by its date: a later step may patch what is installed.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from aos.build.steps.uv import FILES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aos.build.steps.uv import Uv

__all__ = ["compile_installed"]

_SCRIPT = """\
import py_compile, sys, warnings
if sys.version_info < (3, 11): sys.exit()  # sets among constants are in another order every time: bpo-37596
warnings.simplefilter("ignore")
with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as names:
    for name in names.read().split("\\0")[:-1]:
        try:
            py_compile.compile(name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        except (py_compile.PyCompileError, OSError, ValueError, RecursionError):
            pass  # a template, or of another version of Python: it stays as it is
"""


async def compile_installed(uv: Uv) -> None:
    """Replace all byte code in the step's upper directory by that of the modules in it."""
    modules = sorted(_modules(uv.task.upper))
    if not modules:
        return
    (uv.files / "modules").write_bytes(b"".join(os.fsencode(f"/{name}") + b"\0" for name in modules))
    await uv.run_python("-S", "-c", _SCRIPT, f"{FILES}/modules")


def _modules(upper: Path) -> Iterator[str]:
    for directory, names, files in os.walk(upper):
        if "__pycache__" in names:
            names.remove("__pycache__")
            _empty(f"{directory}/__pycache__")
        place = os.path.relpath(directory, upper)
        for name in files:
            if name.endswith(".py") and stat.S_ISREG(os.lstat(f"{directory}/{name}").st_mode):  # no whiteout
                yield f"{place}/{name}"


def _empty(directory: str) -> None:
    """Remove a wheel's own byte code, or what was made while one was built; not whiteouts of what lies below."""
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        if stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)
