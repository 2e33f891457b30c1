"""Whose user ids a sandbox has: a range of its own where host, backend and mounts can do that, else the host's.

With a range of its own, what is root inside is nobody outside. Files that are there already (layers, mounts) are shown
with their ids mapped, by the kernel: nothing is copied, and what the agent writes to a mounted directory belongs there
to whom it belongs inside. What it writes to its own root lies on the disk as its range's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aos import errors
from aos.errors import AosError, FailedPrecondition
from aos.rootless.user import in_user_namespace
from aos.runtime.backends.supervised.mounts import STAGE
from aos.runtime.backends.supervised.native import clone_tree, map_ids, namespaces

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.protocol import IdMap
    from aos.runtime.id_ranges import IdRanges
    from aos.runtime.spec import AgentSpec

__all__ = ["IdHost", "UserIds", "check_ids", "choose_ids"]


class IdHost(Protocol):
    """What a backend knows of user ids."""

    @property
    def backend(self) -> str: ...

    @property
    def users(self) -> str:
        """As AgentSpec's confinement has it, where that says nothing."""
        ...

    @property
    def user_namespaces(self) -> bool:
        """Whether its sandboxes can have one."""
        ...

    @property
    def id_ranges(self) -> IdRanges: ...


@dataclass(frozen=True, slots=True)
class UserIds:
    ids: IdMap
    namespace: int
    """A descriptor of a user namespace that maps them: the sandbox's."""
    network: int | None
    """A descriptor of a network namespace that this user namespace owns, for a sandbox that the host connects: runc's
    exec could enter no other."""

    def close(self) -> None:
        os.close(self.namespace)
        if self.network is not None:
            os.close(self.network)


def choose_ids(host: IdHost, directory: Path, spec: AgentSpec, layers: Path | None) -> UserIds | str:
    """Its own; else why it has the host's. `layers`: the directory that they are all in. FailedPrecondition
    `user-namespace-unavailable`, NotImplemented `capability-missing` where it must have its own and cannot."""
    wanted = spec.confinement.users or host.users
    if wanted == "host":
        return "as asked for"
    if spec.rootfs.upper is not None:
        return "a build keeps what was written, with its owners"
    try:
        if not host.user_namespaces:
            raise errors.NotImplemented(
                f"the {host.backend} backend has no user ids of its own for each sandbox",
                code="capability-missing",
                hint="run it with --userns host, or with the oci backend",
                backend=host.backend,
            )
        if spec.network.mode == "agent":  # its exec could not enter a namespace that is not its own
            raise _unavailable("it shares the network of another agent")
        if spec.confinement.devices:  # runc takes a device's name inside for its name on the host
            raise _unavailable("it has devices of the host")
        if in_user_namespace():
            raise _unavailable(
                "an ordinary user has ids for one range, which all sandboxes of the user's are in"
            )
        if layers is None:
            raise _unavailable("its layers are not in directories of this host")
        return _own(host.id_ranges, directory, spec, layers)
    except AosError as error:
        if wanted == "private":
            raise
        return error.message.partition(": ")[2] or error.message


def check_ids(ranges: IdRanges, *paths: Path) -> None:
    """FailedPrecondition `user-namespace-unavailable` where no sandbox could have ids of its own that is shown these."""
    try:
        namespace, _ = namespaces(ranges.map_from(ranges.pool[0]), network=False)
    except OSError as error:
        raise _unavailable(f"no user namespace can be made: {error.strerror}") from error
    try:
        for path in paths:
            _try(path, namespace)
    finally:
        os.close(namespace)


def _own(ranges: IdRanges, directory: Path, spec: AgentSpec, layers: Path) -> UserIds:
    try:
        ids = ranges.claim(directory)
    except OSError as error:  # an ordinary user's installation has no say in the host's ranges
        raise _unavailable(f"no range can be claimed: {error.strerror}") from error
    try:
        # Its root is there on the host, too, and empty: from outside, runc works in that directory.
        if not (STAGE / "rootfs").exists():
            (STAGE / "rootfs").mkdir(parents=True, exist_ok=True)
            STAGE.chmod(0o711)  # whatever the umask
        namespace, network = namespaces(ids, network=spec.network.mode == "bridge")
    except OSError as error:
        ranges.release(ids.uids[0][1], directory)
        raise _unavailable(f"no user namespace can be made: {error.strerror}") from error
    users = UserIds(ids, namespace, network)
    try:
        for path in (layers, *_mounted(spec)):
            _try(path, namespace)
    except BaseException:
        users.close()
        ranges.release(ids.uids[0][1], directory)
        raise
    return users


def _mounted(spec: AgentSpec) -> list[Path]:
    return [mount.source for mount in spec.mounts if mount.kind == "bind" and mount.source is not None]


def _try(path: Path, namespace: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            tree = clone_tree(opened)
        finally:
            os.close(opened)
        try:
            map_ids(tree, namespace)
        finally:
            os.close(tree)
    except OSError as error:
        raise _unavailable(f"the ids of {path} cannot be mapped: {error.strerror}") from error


def _unavailable(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the sandbox cannot have user ids of its own: {why}",
        code="user-namespace-unavailable",
        hint="run it with --userns host or auto; id-mapped mounts need Linux 5.19 and a file system that has them",
    )
