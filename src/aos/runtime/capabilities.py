"""The capabilities of a sandbox: which it has by default, and which there are.

Source: capabilities(7), include/uapi/linux/capability.h of Linux 6.18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ALL", "CAPABILITIES", "CONFINED", "capability_name", "held_capabilities"]

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What package managers and servers need as root of their own files, and no more: the default of
containers-common. Not in it, though in Docker's: MKNOD, NET_RAW, AUDIT_WRITE."""

CONFINED = (
    "CAP_AUDIT_WRITE",
    "CAP_IPC_LOCK",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
)
"""What may be added where no policy says otherwise: what they reach ends at the sandbox's own namespaces, or is denied
by its device rules all the same."""

ALL = (
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
)


def capability_name(text: str) -> str:
    """`net_raw` and `CAP_NET_RAW` are CAP_NET_RAW; `all` is ALL. InvalidArgument `capability-unknown`."""
    name = text.upper()
    if name != "ALL" and not name.startswith("CAP_"):
        name = "CAP_" + name
    if name not in (*ALL, "ALL"):
        raise InvalidArgument(
            f"no capability {text!r:.40}",
            code="capability-unknown",
            hint="such as NET_RAW; capabilities(7) lists them",
        )
    return name


def held_capabilities(add: Iterable[str], drop: Iterable[str]) -> tuple[str, ...]:
    """The default ones without `drop`, then with `add`; ALL is all of them. In the order of their names."""
    added, dropped = set(add), set(drop)
    held = set() if "ALL" in dropped else set(CAPABILITIES) - dropped
    held |= set(ALL) - dropped if "ALL" in added else added
    return tuple(sorted(held))
