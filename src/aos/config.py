"""Where AOS keeps things, and the node's one TOML file.

Precedence: flag > environment > file > default. `root` holds what must survive a reboot, `state` what must
not. Two installations with different roots and states never meet.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument
from aos.rootless.user import user_id

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Config", "load_config"]


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration of one installation on one host."""

    root: Path
    """Persistent state: content, registry index, build cache, journal, exit records."""
    state: Path
    """Transient state: sockets, locks, runtime state. Gone after a reboot."""
    runtime: str = "oci"
    """The default backend, or `auto` (`[runtime] default`)."""
    isolation: str = "none"
    """The least isolation that agents get here (`[runtime] isolation`): none, namespaces, kernel or vm."""
    oci_runtime: str = ""
    """Path or name of runc, crun or youki (`[runtime] oci`); empty: the first of these on PATH."""
    runsc: str = "runsc"
    """Path or name of gVisor's runsc (`[runtime] gvisor`)."""
    conmon: str = "conmon"
    """Path or name of conmon (`[runtime] conmon`)."""
    seccomp: str = ""
    """Path of the seccomp profile (`[runtime] seccomp`); empty: the one of containers-common."""

    network_pool: str = ""
    """Addresses of sandboxes (`[network] pool = "10.99.0.0/16"`); empty: a /16 that the host has no route to."""
    network_host: str = "allow"
    """Whether agents may have the host's own network (`[network] host`): allow or forbid."""
    containerd: str = "/run/containerd/containerd.sock"
    """containerd's socket (`[containerd] address`)."""
    containerd_namespace: str = "aos"
    """Where our sandboxes are in it (`[containerd] namespace`)."""
    containerd_snapshotter: str = "overlayfs"
    """What unpacks layers there (`[containerd] snapshotter`)."""
    containerd_handler: str = "io.containerd.runc.v2"
    """The runtime handler of the backend `containerd` (`[containerd] handler`)."""
    kata_config: str = ""
    """Kata's configuration file, which chooses the hypervisor (`[kata] config`); empty: Kata's default."""

    build_cache: int = 20 << 30
    """Bytes of layers that builds keep for the next ones, the last used (`[build] cache = "20Gi"`); 0: no limit."""
    pool: int = 32
    """Sandboxes that may wait in all pools together (`[pool] sandboxes`); 0: no pools."""
    users: str = "auto"
    """Whose user ids sandboxes have (`[isolation] userns`): host, auto or private (docs/isolation.md)."""
    ids: str = ""
    """Where their own are from (`[isolation] ids = "FIRST:COUNT"`); empty: root's in /etc/subuid, or a default."""
    capabilities: tuple[str, ...] | None = None
    """Which may be added to the default ones (`[isolation] capabilities`); None: those that reach no further than the
    sandbox."""
    unconfined: bool = False
    """Whether `--security-opt seccomp=unconfined` and profiles from anywhere may be asked for
    (`[isolation] unconfined`)."""
    host_users: bool = True
    """Whether agents may have the host's ids, by `--userns host` or by `auto` (`[isolation] host_users`)."""
    mounts: tuple[str, ...] = ("/",)
    """Below what a path of the host must be to be mounted (`[mounts] allow`)."""
    allow_host_hooks: bool = False
    """Whether hooks of packages may run on the host (`allow_host_hooks = true`)."""

    @property
    def socket(self) -> Path:
        """The operator's kernel socket; the directory is 0700, the socket 0600."""
        return self.state / "kernel" / "kernel.sock"

    @property
    def installation(self) -> str:
        """`aos-<8 hex>`: names this installation where names are shared by the host (cgroups)."""
        return "aos-" + hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]


_KEYS = {
    ("root",): "root",
    ("state",): "state",
    ("runtime", "default"): "runtime",
    ("runtime", "isolation"): "isolation",
    ("runtime", "oci"): "oci_runtime",
    ("runtime", "gvisor"): "runsc",
    ("runtime", "conmon"): "conmon",
    ("runtime", "seccomp"): "seccomp",
    ("network", "pool"): "network_pool",
    ("network", "host"): "network_host",
    ("containerd", "address"): "containerd",
    ("containerd", "namespace"): "containerd_namespace",
    ("containerd", "snapshotter"): "containerd_snapshotter",
    ("containerd", "handler"): "containerd_handler",
    ("kata", "config"): "kata_config",
    ("build", "cache"): "build_cache",
    ("pool", "sandboxes"): "pool",
    ("isolation", "userns"): "users",
    ("isolation", "ids"): "ids",
    ("isolation", "capabilities"): "capabilities",
    ("isolation", "unconfined"): "unconfined",
    ("isolation", "host_users"): "host_users",
    ("mounts", "allow"): "mounts",
    ("allow_host_hooks",): "allow_host_hooks",
}
_BOOLEANS = frozenset({("allow_host_hooks",), ("isolation", "unconfined"), ("isolation", "host_users")})
_COUNTS = frozenset({("pool", "sandboxes")})
_LISTS = frozenset({("isolation", "capabilities"), ("mounts", "allow")})


def load_config(environ: Mapping[str, str], *, uid: int | None = None) -> Config:
    """Read `$AOS_CONFIG`, else `/etc/aos/config.toml` (root) or `$XDG_CONFIG_HOME/aos/config.toml`.

    A file named by AOS_CONFIG must exist. Raises InvalidArgument (`config-unreadable`, `config-invalid`)
    naming file, line and key.
    """
    uid = user_id(environ) if uid is None else uid
    home = Path(environ.get("HOME") or "/")
    if uid == 0:
        root, state, file = Path("/var/lib/aos"), Path("/run/aos"), Path("/etc/aos/config.toml")
    else:
        root = Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "aos"
        state = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}") / "aos"
        file = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "aos/config.toml"
    values: dict[str, Any] = {"root": root, "state": state}
    values |= _read(
        Path(environ["AOS_CONFIG"]) if environ.get("AOS_CONFIG") else file, bool(environ.get("AOS_CONFIG"))
    )
    for variable, key in (("AOS_ROOT", "root"), ("AOS_STATE", "state"), ("AOS_RUNTIME", "runtime")):
        if environ.get(variable):
            values[key] = environ[variable]
    for key in ("root", "state"):
        values[key] = Path(values[key])
        if not values[key].is_absolute():
            raise InvalidArgument(
                f"{key} must be an absolute path, not {str(values[key])!r}",
                code="config-invalid",
                hint=f"set AOS_{key.upper()} or '{key}' in the configuration to a path that begins with '/'",
            )
    if values.get("network_host", "allow") not in ("allow", "forbid"):
        raise InvalidArgument(
            f"network.host must be allow or forbid, not {values['network_host']!r:.60}", code="config-invalid"
        )
    if values.get("users", "auto") not in ("auto", "host", "private"):
        raise InvalidArgument(
            f"isolation.userns must be auto, private or host, not {values['users']!r:.60}",
            code="config-invalid",
        )
    return Config(**values)


def _read(file: Path, must_exist: bool) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        if not must_exist:
            return {}
        raise InvalidArgument(
            f"{file}: the configuration named by AOS_CONFIG does not exist", code="config-unreadable"
        ) from None
    except OSError as error:
        raise InvalidArgument(
            f"{file}: cannot read the configuration: {error.strerror}",
            code="config-unreadable",
            hint="correct its owner and mode, or name another file with AOS_CONFIG",
        ) from error
    import tomllib

    try:
        raw = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file}: not TOML: {error}", code="config-invalid") from error
    values: dict[str, Any] = {}
    for path, value in _leaves(raw):
        fits, word = _expected(path, value)
        if path not in _KEYS or not fits:
            known = ", ".join(".".join(key) for key in _KEYS)
            raise InvalidArgument(
                f"{file}: {'.'.join(path)}: " + (f"must be {word}" if path in _KEYS else "unknown key"),
                code="config-invalid",
                hint=f"known keys: {known}",
            )
        if path == ("build", "cache"):
            value = _size(file, path, value)
        values[_KEYS[path]] = tuple(value) if path in _LISTS else value
    return values


def _expected(path: tuple[str, ...], value: object) -> tuple[bool, str]:
    """Whether the value is of the kind that the key takes; and the name of that kind."""
    if path in _BOOLEANS:
        return isinstance(value, bool), "true or false"
    if path in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a number, 0 or more"
    if path in _LISTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of strings"
    return isinstance(value, str), "a string"


def _size(file: Path, path: tuple[str, ...], text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]i?)?B?", text)
    if match is None:
        raise InvalidArgument(
            f"{file}: {'.'.join(path)}: {text!r:.60} is not a size",
            code="config-invalid",
            hint="such as 20Gi or 500MB; 0 for no limit",
        )
    unit = match[2] or ""
    power = " KMGT".index(unit[0]) if unit else 0
    size: int = int(match[1]) * (1024 if unit.endswith("i") else 1000) ** power
    return size


def _leaves(table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in table.items():
        path = (*prefix, key)
        found += _leaves(value, path) if isinstance(value, dict) else [(path, value)]
    return found
