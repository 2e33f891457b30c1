"""Making a sandbox, and letting its entrypoint run."""

from __future__ import annotations

import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from aos.content.protocol import IdMap
from aos.content.tree import LayerTree, resolve
from aos.errors import AlreadyExists, AosError, FailedPrecondition, Internal, NotFound
from aos.runtime.backends.containerd.finish import finished
from aos.runtime.backends.containerd.handlers import resources
from aos.runtime.backends.containerd.joining import Joining, own_descriptor
from aos.runtime.backends.containerd.layers import LABEL_INSTALLATION
from aos.runtime.backends.containerd.mounts import directories, mount_layers, unmount_below
from aos.runtime.backends.containerd.record import CONFIG, Record
from aos.runtime.backends.containerd.roots import Roots, mapped
from aos.runtime.backends.containerd.streams import Streams, hold
from aos.runtime.backends.supervised.being_made import BeingMade
from aos.runtime.backends.supervised.checks import check_spec, resolved_mounts
from aos.runtime.backends.supervised.conmon import LOG
from aos.runtime.backends.supervised.connecting import connecting
from aos.runtime.backends.supervised.entrypoint import check_command
from aos.runtime.backends.supervised.failures import failure
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.mounts import Mounts
from aos.runtime.backends.supervised.record import process_start
from aos.runtime.backends.supervised.staging import Staging
from aos.runtime.backends.supervised.user_ids import choose_ids
from aos.runtime.bundle import runtime_config
from aos.runtime.state import Sandbox, SandboxState
from aos.runtime.users import resolve_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.ids import SandboxId
    from aos.runtime.backends.containerd.ending import Ends
    from aos.runtime.backends.containerd.host import Host
    from aos.runtime.backends.containerd.removal import Removal
    from aos.runtime.backends.supervised.user_ids import UserIds
    from aos.runtime.cdi import Edits
    from aos.runtime.spec import AgentSpec, Mount

__all__ = ["Making", "swap_is_counted"]

_OPEN_FILES = 1_048_576
_CLOSED = re.compile(r"rootfs.*permission denied", re.IGNORECASE | re.DOTALL)
"""How runc and crun say that the sandbox's root user cannot walk to its root file system."""
_SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
LABEL_BACKEND = "aos.openos.dev/backend"


class Making:
    def __init__(self, host: Host, ends: Ends, removal: Removal) -> None:
        self._host = host
        self._ends = ends
        self._removal = removal
        self._roots = Roots(host)

    async def create(self, id: SandboxId, spec: AgentSpec) -> Sandbox:
        """A sandbox that would have ids of its own if it could has the host's where containerd's directories are closed to
        them, which shows when its root is mounted there."""
        if (spec.confinement.users or self._host.users) != "auto":
            return await self._create(id, spec)
        try:
            return await self._create(id, spec, self._host.closed)
        except FailedPrecondition as error:
            if error.code != "user-namespace-unavailable":
                raise
            self._host.closed = error.message.partition(": ")[2]
        return await self._create(id, spec, self._host.closed)

    async def _create(self, id: SandboxId, spec: AgentSpec, host_users: str = "") -> Sandbox:
        """`host_users`: why it is to have the host's ids, whatever it asks for."""
        check_spec(spec)
        self._host.handler.check(spec)
        devices = self._host.devices(spec.confinement.devices)
        spec = devices.on(spec)
        await self._host.connection.version()
        directory = self._host.sandboxes / id
        being_made = BeingMade(directory)
        tree = LayerTree([])
        users: UserIds | None = None
        joining: Joining | None = None
        try:
            root = await self._roots.make(id, spec)
            tree = root.tree
            spec = replace(spec, mounts=resolved_mounts(spec, tree))
            check_command(spec.process, tree, [mount.target.strip("/") for mount in spec.mounts])
            chosen = host_users or choose_ids(self._host, directory, spec, root.layers)
            users = None if isinstance(chosen, str) else chosen
            joining = Joining(await connecting(self._host, directory, spec, users))
            await joining.enter()
            config = await self._configure(id, directory, spec, tree, users, joining, devices)
            options = self._host.handler.options(self._host.config, _root_user(users))
            await self._record_container(id, config, options)
            rootfs = root.mounts if users is None else root.shown_to(users, directory / "mapped")
            joining.network.begin()
            ids = chosen if isinstance(chosen, str) else chosen.ids.uids[0][1:]
            pid = await self._create_task(id, directory, spec, rootfs, tree, options, ids)
            await joining.network.finish()
            unmount_below(directory)  # the sandbox has it now
        except BaseException as error:
            if joining is not None:
                await joining.network.give_up()
            being_made.end()
            await self._removal.give_up(id)
            if isinstance(error, Internal) and error.code == "runtime-failed":
                if users is not None and _CLOSED.search(error.message):
                    raise _closed() from error
                raise failure(error.message, spec.process.args[0], tree) from error
            raise
        finally:
            being_made.end()
            if joining is not None:
                joining.close()
            if users is not None:
                users.close()
        self._ends.watch(id)
        return Sandbox(id, SandboxState.CREATED, pid, users=ids)

    async def start(self, id: SandboxId) -> None:
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        self._host.directory(id)
        try:
            await self._host.tasks("Start", tasks_pb2.StartRequest(container_id=id))
        except AosError as error:
            state = await self._host.state(id)
            if not state.can_start():
                raise wrong_state(id, state, "start") from error
            raise failure(error.message, "", self._host.tree(id)) from error

    async def _configure(
        self,
        id: SandboxId,
        directory: Path,
        spec: AgentSpec,
        tree: LayerTree,
        users: UserIds | None,
        joining: Joining,
        devices: Edits,
    ) -> dict[str, Any]:
        """The runtime's configuration; what it takes for granted that is mounted is, until the task exists."""
        user = resolve_user(spec.process.user, tree)
        ids = IdMap.identity() if users is None else users.ids
        staging = Staging(directory, owner=ids.to_host(user.uid, user.gid), root=ids.to_host(0, 0))
        found: dict[str, Path] = {}
        for number, mount in enumerate(mount for mount in spec.mounts if mount.kind == "layers"):
            target = directory / f"layers-{number}"
            target.mkdir()
            mounts = await self._roots.snapshot("View", id, f"-{number}", mount.layers)
            if users is not None and (lowers := directories(mounts)) is not None:
                mounts = mapped(mounts, lowers, users, directory / f"mapped-{number}")
            mount_layers(target, mounts)
            found[mount.target] = target / _find(mount, LayerTree([target]))
        staging.add(spec.mounts, found)
        files = staging.add_files(joining.network.files(), tree)
        sysfs = None
        if users is not None and joining.path is None:  # its user namespace does not own the host's network
            sysfs = directory / "sys"
            staging.sources["/sys"] = str(sysfs)
        namespace = None if users is None else users.namespace
        Mounts(directory, (), staging.binds, staging.files, staging.nested, namespace, sysfs=sysfs).mount()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        config = runtime_config(
            replace(spec, mounts=tuple(staging.mounts)),
            user=user,
            rootfs="rootfs",
            cgroup=f"/{self._host.group(id)}/payload",
            files=files,
            sources=staging.sources,
            seccomp=self._host.profiles.of(spec.confinement),
            open_files=_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES),
            ids=None if users is None else ids,
            user_namespace="" if users is None else own_descriptor(users.namespace),
            network=joining.path,
        )
        config["linux"]["resources"] |= resources(spec.limits, swap=swap_is_counted())
        devices.apply(config)
        self._host.handler.configure(config, spec, self._host.config)
        (directory / CONFIG).write_bytes(msgspec.json.encode(config))
        return config

    async def _record_container(self, id: SandboxId, config: dict[str, Any], options: Any) -> None:
        from google.protobuf.any_pb2 import Any as Packed

        from aos.runtime.backends.containerd._api.services import containers_pb2

        handler = self._host.handler
        runtime = containers_pb2.Container.Runtime(name=handler.name, options=options)
        container = containers_pb2.Container(
            id=id,
            labels={
                LABEL_INSTALLATION: self._host.config.installation,
                LABEL_BACKEND: handler.backend,
            },
            runtime=runtime,
            spec=Packed(type_url=_SPEC, value=msgspec.json.encode(config)),
            snapshotter=self._host.config.snapshotter,
            snapshot_key=self._host.snapshot(id),
        )
        containers = await self._host.connection.service("Containers")
        try:
            await containers.call("Create", containers_pb2.CreateContainerRequest(container=container))
        except AlreadyExists as error:
            raise AlreadyExists(
                f"containerd has a container {id} already",
                code="sandbox-exists",
                hint=f"see `ctr --namespace {self._host.config.namespace} containers info {id}`",
                sandbox=id,
            ) from error

    async def _create_task(
        self,
        id: SandboxId,
        directory: Path,
        spec: AgentSpec,
        rootfs: Sequence[Any],
        tree: LayerTree,
        options: Any,
        users: tuple[int, ...] | str,
    ) -> int:
        from aos.runtime.backends.containerd._api.services import tasks_pb2

        streams = Streams.make(directory, spec.process)
        log = spec.log or directory / LOG
        leave = spec.leave_stdin_open

        async def held() -> None:
            holder = await hold(self._host.config, id, streams, directory, log=log, leave_stdin_open=leave)
            start = process_start(holder) or ""
            lowers = tuple(map(str, tree.layers))
            Record(holder, start, spec.process.terminal, lowers, str(log), leave, users).write(directory)

        await finished(held(), f"holder of {id}")
        request = tasks_pb2.CreateTaskRequest(
            container_id=id,
            rootfs=rootfs,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=spec.process.terminal,
            options=options,
        )
        with self._host.quick_moves:
            answer: tasks_pb2.CreateTaskResponse = await self._host.tasks("Create", request)
        return answer.pid


def _closed() -> FailedPrecondition:
    return FailedPrecondition(
        "the sandbox cannot have user ids of its own: containerd's state directory is closed to other users",
        code="user-namespace-unavailable",
        hint="open the way to it (`chmod o+x`, as on /run/containerd), or run it with --userns host or auto",
    )


def _root_user(users: UserIds | None) -> tuple[int, int]:
    """Who the sandbox's root is on the host."""
    return (0, 0) if users is None else users.ids.to_host(0, 0)


def swap_is_counted() -> bool:
    """Whether a limit on memory and swap together can be set; version 1 may have been started without it."""
    v1 = Path("/sys/fs/cgroup/memory")
    return not v1.exists() or (v1 / "memory.memsw.limit_in_bytes").exists()


def _find(mount: Mount, tree: LayerTree) -> str:
    path = resolve(tree, mount.path, follow_last=True)
    if tree.lstat(path) is None:
        raise NotFound(
            f"the layers for {mount.target!r} hold no {mount.path!r}",
            code="mount-source-missing",
            hint="name a path that is there",
            source=mount.path,
        )
    return path
