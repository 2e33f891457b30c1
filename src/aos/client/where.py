"""Where the node's directories are, by the rules of aos.config, read here without its imports.

Only a configuration file that exists, or is named, costs the import of the parser.
"""

from __future__ import annotations

import posix

from aos.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["state_directory"]


def state_directory(environ: Mapping[bytes, bytes]) -> str:
    """The transient directory of this user's installation, an absolute path."""

    def get(name: bytes) -> str:
        return environ.get(name, b"").decode("utf-8", "surrogateescape")

    if state := get(b"AOS_STATE"):
        if not state.startswith("/"):
            raise InvalidArgument(
                f"state must be an absolute path, not {state!r}",
                code="config-invalid",
                hint="set AOS_STATE to a path that begins with '/'",
            )
        return state
    uid = posix.getuid()
    if uid == 0 and get(b"AOS_ROOTLESS_UID").isdecimal():  # as aos.rootless.user has it
        uid = int(get(b"AOS_ROOTLESS_UID"))
    file = "/etc/aos/config.toml"
    if uid != 0:
        file = (get(b"XDG_CONFIG_HOME") or (get(b"HOME") or "/") + "/.config") + "/aos/config.toml"
    if get(b"AOS_CONFIG") or _exists(file):
        import os

        from aos.config import load_config

        return str(load_config(os.environ).state)
    return "/run/aos" if uid == 0 else (get(b"XDG_RUNTIME_DIR") or f"/run/user/{uid}") + "/aos"


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True
