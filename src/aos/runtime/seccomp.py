"""The seccomp profile of containers-common, converted to what the OCI runtime specification takes.

The profile says for which architectures and capabilities a rule holds (the format of
github.com/containers/common, pkg/seccomp); the runtime wants the rules that hold here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from aos.errors import FailedPrecondition
from aos.runtime.capabilities import held_capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aos.runtime.spec import Confinement

__all__ = ["DEFAULT_PROFILES", "Profiles", "load_seccomp"]

DEFAULT_PROFILES = (Path("/etc/containers/seccomp.json"), Path("/usr/share/containers/seccomp.json"))
"""An administrator's first, the distribution's second, as for podman."""

AGENT_PROFILE = Path(__file__).parent / "profiles" / "agent.json"
"""What agents call (tools/learn-seccomp), and no more."""

_ARCHITECTURES = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
}
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Profiles:
    """What sandboxes were confined by so far, encoded once each."""

    def __init__(self, default: str) -> None:
        """`default`: as for `load_seccomp`."""
        self._default = default
        self._encoded: dict[tuple[str, tuple[str, ...]], msgspec.Raw] = {}

    def of(self, confinement: Confinement) -> msgspec.Raw | None:
        """None: system calls are not filtered. Errors as of `load_seccomp`."""
        name = confinement.seccomp
        if name == "unconfined":
            return None
        path = self._default if name in ("", "default") else name
        held = held_capabilities(confinement.add_capabilities, confinement.drop_capabilities)
        if (path, held) not in self._encoded:
            self._encoded[path, held] = msgspec.Raw(msgspec.json.encode(load_seccomp(path, held)))
        return self._encoded[path, held]


def load_seccomp(path: str, capabilities: Collection[str]) -> dict[str, Any]:
    """`linux.seccomp` of a runtime configuration, for a process with these capabilities on this machine.

    `path` is empty for the default, `agent` for the tighter one that comes with AOS. FailedPrecondition
    `seccomp-profile-missing`, `seccomp-profile-invalid`.
    """
    candidates = (AGENT_PROFILE if path == "agent" else Path(path),) if path else DEFAULT_PROFILES
    narrow = not path and "CAP_SYS_ADMIN" not in capabilities
    for candidate in candidates:
        try:
            data = candidate.read_bytes()
        except OSError:
            continue
        try:
            profile = _convert(json.loads(data), capabilities)
            return _without_nesting(profile) if narrow else profile
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FailedPrecondition(
                f"{candidate}: not a seccomp profile: {error}",
                code="seccomp-profile-invalid",
                path=str(candidate),
            ) from error
    raise FailedPrecondition(
        f"no seccomp profile: {' and '.join(map(str, candidates))} cannot be read",
        code="seccomp-profile-missing",
        hint="install it: `apt-get install golang-github-containers-common` on Debian and Ubuntu, "
        "`dnf install containers-common` on Fedora; or set [runtime] seccomp",
    )


def _convert(raw: dict[str, Any], capabilities: Collection[str]) -> dict[str, Any]:
    machine = os.uname().machine
    # The machine's own calls alone: without its 32-bit ones there is less kernel to attack, and a third less
    # filter to compile at each start (docs/decisions/0009-native-system-calls.md).
    architectures = [_ARCHITECTURES[machine]] if machine in _ARCHITECTURES else []
    known = _known_names()
    converted: dict[str, Any] = {"defaultAction": raw["defaultAction"], "syscalls": []}
    if "defaultErrnoRet" in raw:
        converted["defaultErrnoRet"] = raw["defaultErrnoRet"]
    if architectures:
        converted["architectures"] = architectures
    for rule in raw["syscalls"]:
        if not _holds(rule, _GO_ARCHITECTURES.get(machine, machine), capabilities):
            continue
        names = [name for name in rule["names"] if known(name)]
        if not names:
            continue
        kept = {"names": names, "action": rule["action"]}
        if rule.get("errnoRet") is not None:
            kept["errnoRet"] = rule["errnoRet"]
        if rule.get("args"):
            kept["args"] = rule["args"]
        converted["syscalls"].append(kept)
    return converted


_NESTING = frozenset(
    {
        *("unshare", "setns", "clone", "clone3"),
        *("mount", "umount", "umount2", "pivot_root", "mount_setattr", "move_mount", "open_tree"),
        *("fsopen", "fsconfig", "fsmount", "fspick"),
        *("add_key", "keyctl", "request_key"),
    }
)
"""What containers-common lets pass for containers inside of containers: a user namespace in there would be root of much
more of the kernel than an agent needs. And keyrings: they are shared by all that have a user's id."""
_CLONE_NAMESPACES = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}, as moby's profile has it."""
_ENOSYS = 38


def _without_nesting(profile: dict[str, Any]) -> dict[str, Any]:
    """Threads and processes, but no namespaces: clone3 hides its flags in memory, so that it is not there at all, and
    the C library goes on with clone."""
    rules = [
        {**rule, "names": names}
        for rule in profile["syscalls"]
        if (names := [name for name in rule["names"] if name not in _NESTING])
    ]
    flags = {"index": 0, "value": _CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [flags]})
    rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {**profile, "syscalls": rules}


def _known_names() -> Callable[[str], bool]:
    """Whether this machine has a system call of that name; a fifth of the profile's are other machines'. Without
    libseccomp every name is kept, and the OCI runtime passes over what it does not know."""
    import ctypes

    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name
    except (OSError, AttributeError):
        return lambda _: True
    return lambda name: int(resolve(name.encode())) >= 0


def _holds(rule: dict[str, Any], architecture: str, capabilities: Collection[str]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if architecture in (excludes.get("arches") or ()):
        return False
    if not all(capability in capabilities for capability in includes.get("caps") or ()):
        return False
    return not any(capability in capabilities for capability in excludes.get("caps") or ())
