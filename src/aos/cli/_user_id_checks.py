"""Whether agents have user ids of their own on this host: the check of `aos doctor` for docs/isolation.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.cli._checks import Check
from aos.errors import AosError

if TYPE_CHECKING:
    from pathlib import Path

    from aos.config import Config

__all__ = ["check_user_ids"]


def check_user_ids(config: Config, snapshots: Path) -> Check:
    """`snapshots`: an existing directory where layers are, or will be."""
    from aos.compose import own_user_ids

    name = "own user ids"
    if config.users == "host":
        why = "agents have the host's, unless they ask for their own"
        return Check(name, "warn", why, 'set [isolation] userns to "auto" in the configuration')
    try:
        first, agents = own_user_ids(config, snapshots)
    except AosError as error:
        must = config.users == "private" or not config.host_users
        why = error.message.partition(": ")[2] or error.message
        so = "agents cannot run" if must else "agents have the host's"
        return Check(
            name,
            "fail" if must else "warn",
            f"{so}: {why}",
            "id-mapped mounts need Linux 5.19 and a file system that has them: set AOS_ROOT to a directory on ext4, xfs or btrfs",
        )
    return Check(name, "ok", f"for {agents} agents at once, from {first} on")
