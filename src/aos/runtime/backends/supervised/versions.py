"""Which versions of the tools this room was written against, and what a tool says it is."""

from __future__ import annotations

import re
from pathlib import Path

from aos.errors import FailedPrecondition
from aos.runtime.backends.supervised.launch import run_tool, tool_environment

__all__ = ["installed_version"]

_SECONDS = 10.0
"""How long a tool may take to say its version before it counts as hung."""
_MINIMUM: dict[str, tuple[int, ...]] = {
    "conmon": (2, 0, 26),  # --full-attach; without it socket paths end at 107 bytes
    "runc": (1, 1),  # cgroup namespaces on version 1 hosts, and the fixes of its file descriptor leaks
    "crun": (1, 0),
    "youki": (0, 3),
    "runsc": (20240101,),  # --overlay2, --host-uds and checkpoints of a paused sandbox
}


async def installed_version(path: str) -> str:
    """The first line of `--version`; FailedPrecondition `runtime-version` when it is too old, or says nothing of use,
    Unavailable `tool-timeout` when it hangs. A version that its builder did not fill in is taken for new."""
    name = Path(path).name
    code, said = await run_tool([path, "--version"], tool_environment(), seconds=_SECONDS, everything=True)
    line = said.partition("\n")[0].strip()
    if code != 0 or not line:
        raise FailedPrecondition(
            f"{path} --version ended with {code}" + (f": {line}" if line else ""),
            code="runtime-version",
            hint=f"install {name} again; is it built for this machine?",
            tool=path,
        )
    minimum = _MINIMUM.get(name)
    found = re.search(r"\d+(?:\.\d+)*", line.removeprefix(name))
    if minimum and found and tuple(map(int, found[0].split("."))) < minimum:
        raise FailedPrecondition(
            f"{path} is version {found[0]}, and {'.'.join(map(str, minimum))} or later is needed",
            code="runtime-version",
            hint=f"install a newer {name}, or name another in [runtime] of the configuration",
            tool=path,
        )
    return line
