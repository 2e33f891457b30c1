"""What an installation lets agents have of its host: paths to mount, capabilities, profiles, user ids.

Checked each time a sandbox is specified, so that what was allowed yesterday is not mounted today against today's
configuration.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import InvalidArgument, PermissionDenied
from aos.runtime.capabilities import ALL, CAPABILITIES, CONFINED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.runtime.spec import AgentSpec, Mount

__all__ = ["PROFILES", "Policy", "parse_paths"]

PROFILES = Path("/etc/aos/seccomp")
"""Where an administrator puts seccomp profiles for agents."""

_DENIED = (
    "/boot",
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/etc/gshadow",
    "/etc/shadow",
    "/etc/ssh",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/root/.ssh",
    "/var/lib/aos",
    "/var/lib/aos-ids",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/rancher",
)
"""The kernel's own views, sockets and state of whoever runs containers, what logs people in: with one of these, or with
what holds one (`/`, `/etc`, `/var`), an agent would be the host."""

_OF_THE_NETWORK = frozenset({"CAP_NET_ADMIN", "CAP_NET_RAW"})
"""They reach the host where its network is the agent's, and other agents where they share a bridge: with these an
agent can say that it is another one."""


@dataclass(frozen=True, slots=True)
class Policy:
    own: tuple[Path, ...] = ()
    """Root and state of the installation: never mounted but for its volumes."""
    mounts: tuple[Path, ...] = (Path("/"),)
    """What may be mounted is below one of these. What is denied by default needs one that names it, or a part of it."""
    capabilities: frozenset[str] | None = None
    """What may be added to the default ones; None: what reaches no further than the sandbox."""
    unconfined: bool = False
    """Whether system calls may go unfiltered, or be filtered by a profile from anywhere."""
    host_network: bool = True
    """Whether an agent may have the host's network."""
    host_users: bool = True
    """Whether an agent may ask for the host's user ids."""
    own_users: bool = False
    """Whether an agent that does not ask for the host's user ids must have its own, where it could do without."""

    def check(self, spec: AgentSpec, volumes: Path) -> AgentSpec:
        """The specification with the sources of its mounts canonical. PermissionDenied `mount-refused`,
        `network-forbidden`, `capability-refused`, `seccomp-refused`, `userns-refused`."""
        if spec.network.mode == "host" and not self.host_network:
            raise PermissionDenied(
                "agents may not have the host's network here",
                code="network-forbidden",
                hint="`--network bridge` gives it one with a policy; [network] host of the configuration forbids this",
            )
        confinement = spec.confinement
        asked = set(ALL) if "ALL" in confinement.add_capabilities else set(confinement.add_capabilities)
        allowed = set(CAPABILITIES) | set(confinement.drop_capabilities)
        if self.capabilities is not None:
            allowed |= self.capabilities
        else:
            allowed |= set(CONFINED) - (_OF_THE_NETWORK if spec.network.mode != "none" else frozenset())
        if asked - allowed:
            raise PermissionDenied(
                f"these capabilities may not be added here: {', '.join(sorted(asked - allowed))}",
                code="capability-refused",
                hint="[isolation] capabilities in the configuration says which may",
            )
        if not self.unconfined and not self._filtered(confinement.seccomp):
            raise PermissionDenied(
                f"system calls may not be filtered by {confinement.seccomp!r} here",
                code="seccomp-refused",
                hint=f"default, agent, or a file below {PROFILES}; [isolation] unconfined = true allows all",
            )
        if confinement.users == "host" and not self.host_users:
            raise PermissionDenied(
                "agents may not have the host's user ids here",
                code="userns-refused",
                hint="[isolation] host_users = true in the configuration allows it",
            )
        if self.own_users and confinement.users in ("", "auto"):
            spec = replace(spec, confinement=replace(confinement, users="private"))
        mounts = tuple(self._mount(mount, volumes) for mount in spec.mounts)
        return replace(spec, mounts=mounts)

    def _filtered(self, seccomp: str) -> bool:
        if seccomp in ("", "default", "agent"):
            return True
        return seccomp != "unconfined" and Path(os.path.realpath(seccomp)).is_relative_to(PROFILES)

    def _mount(self, mount: Mount, volumes: Path) -> Mount:
        if mount.kind != "bind" or mount.source is None:
            return mount
        source = Path(os.path.realpath(mount.source))
        if source.parent != Path(os.path.realpath(volumes)):
            self._check_source(source, str(mount.source))
        return replace(mount, source=source, follow=False)

    def _check_source(self, source: Path, asked: str) -> None:
        through = "" if str(source) == asked else f" (it is {source})"
        if not any(source.is_relative_to(path) for path in self.mounts):
            raise _refused(f"{asked}{through} is not below what may be mounted", self.mounts)
        denied = [*map(Path, _DENIED), *(Path(os.path.realpath(path)) for path in self.own)]
        for path in denied:
            inside, around = source.is_relative_to(path), path.is_relative_to(source)
            named = any(
                allowed.is_relative_to(path) or (around and allowed == source and allowed != Path("/"))
                for allowed in self.mounts
                if source.is_relative_to(allowed)
            )
            if (inside or around) and not named:
                why = "is the host's own" if inside else f"holds {path}, which is the host's own"
                raise _refused(f"{asked}{through} {why}", self.mounts)
        try:
            kind = stat.S_IFMT(source.stat().st_mode)
        except OSError:
            return  # whoever mounts it says that it is not there
        if kind not in (stat.S_IFDIR, stat.S_IFREG) and source not in self.mounts:
            raise _refused(f"{asked}{through} is neither a directory nor a file", self.mounts)


def _refused(why: str, mounts: tuple[Path, ...]) -> PermissionDenied:
    return PermissionDenied(
        f"cannot be mounted: {why}",
        code="mount-refused",
        hint=f"[mounts] allow in the configuration names what may be mounted (now: {', '.join(map(str, mounts))})",
    )


def parse_paths(texts: Iterable[str], key: str) -> tuple[Path, ...]:
    """Absolute, with links followed; InvalidArgument `config-invalid`."""
    for text in texts:
        if not text.startswith("/"):
            raise InvalidArgument(f"{key}: {text!r:.60} is not an absolute path", code="config-invalid")
    return tuple(Path(os.path.realpath(text)) for text in texts)
