"""What is wrong with a specification whatever the backend: InvalidArgument, before anything is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.runtime.spec import Limits, Mount, ProcessSpec

__all__ = ["check_limits", "check_mounts", "check_process"]


def check_process(process: ProcessSpec) -> None:
    """What execve or the kernel would refuse with less to say: `spec-invalid`."""
    if not process.args or not process.args[0]:
        raise InvalidArgument(
            "there is no command to run",
            code="spec-invalid",
            hint="give the package an entrypoint, or name a command",
        )
    if not process.cwd.startswith("/"):
        raise InvalidArgument(f"the working directory {process.cwd!r} is not absolute", code="spec-invalid")
    for name, _ in process.env:
        if not name or "=" in name:
            raise InvalidArgument(f"no variable can be called {name!r}", code="spec-invalid")
    texts = (*process.args, process.cwd, *(text for variable in process.env for text in variable))
    if any("\0" in text for text in texts):
        raise InvalidArgument(
            "a command, a variable or a path cannot hold a zero byte",
            code="spec-invalid",
            hint="hand such data over in a file",
        )


def check_limits(limits: Limits) -> None:
    """`spec-invalid` for what is no limit: zero, less, or not a number."""
    for name, value in (("memory", limits.memory), ("cpus", limits.cpus), ("pids", limits.pids)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InvalidArgument(
                f"{name} cannot be limited to {value}",
                code="spec-invalid",
                hint="a limit is above zero; leave it out for none",
            )


def check_mounts(mounts: Iterable[Mount]) -> None:
    """`spec-invalid`, or `mount-source-missing` for a host path that is not there."""
    for mount in mounts:
        names = mount.target.split("/")
        if not mount.target.startswith("/") or ".." in names or not any(names) or "\0" in mount.target:
            raise InvalidArgument(f"{mount.target!r} is not a place to mount at", code="spec-invalid")
        if mount.kind == "layers" and not mount.layers:
            raise InvalidArgument(f"the mount at {mount.target!r} has no layer", code="spec-invalid")
        if mount.kind == "bind" and not (
            mount.source and mount.source.is_absolute() and mount.source.exists()
        ):
            raise InvalidArgument(
                f"{mount.source} does not exist, or is not absolute",
                code="mount-source-missing",
                hint="make it first; AOS makes no directories on the host",
                source=str(mount.source),
            )
