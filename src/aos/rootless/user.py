"""Who we are, from inside of a user namespace as well. Builtins only."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VARIABLE", "in_user_namespace", "user_id"]

VARIABLE = "AOS_ROOTLESS_UID"
"""Set inside of the user's namespace, where the user's id is 0: what it is outside."""

_EVERY_ID = 4294967295
_known: bool | None = None


def user_id(environ: Mapping[str, str]) -> int:
    """The user whose installation it is: 0 for the host's root alone."""
    uid = posix.getuid()
    outside = environ.get(VARIABLE, "")
    return int(outside) if uid == 0 and outside.isdecimal() else uid


def in_user_namespace() -> bool:
    """Whether our ids are not all of the host's: there are attributes that we may not set, devices that we may not make
    and limits that we may not raise (user_namespaces(7)). Asked once; whoever changes namespaces does so before."""
    global _known
    if _known is None:
        try:
            with open("/proc/self/uid_map") as file:  # noqa: PTH123 - without pathlib
                _known = file.read().split() != ["0", "0", str(_EVERY_ID)]
        except OSError:  # a kernel without user namespaces
            _known = False
    return _known
