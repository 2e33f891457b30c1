"""Making a sandbox, and letting its entrypoint run."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import resource
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aos.content.protocol import IdMap
from aos.content.tree import LayerTree, resolve
from aos.errors import NotFound
from aos.ids import SandboxId
from aos.rootless.user import in_user_namespace
from aos.runtime.backends.supervised.being_made import BeingMade
from aos.runtime.backends.supervised.checks import bad_image, check_image, check_spec, resolved_mounts
from aos.runtime.backends.supervised.conmon import LOG, Conmon
from aos.runtime.backends.supervised.connecting import Connecting, connecting
from aos.runtime.backends.supervised.disk import make_disk
from aos.runtime.backends.supervised.entrypoint import check_command
from aos.runtime.backends.supervised.failures import failure, refused_limits, too_little_memory
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.launch import ToolFailed
from aos.runtime.backends.supervised.mounts import STAGE, USER_NAMESPACE, Mounts, Overlay, separate_mounts
from aos.runtime.backends.supervised.record import Record, process_start
from aos.runtime.backends.supervised.staging import Staging
from aos.runtime.backends.supervised.user_ids import choose_ids
from aos.runtime.bundle import runtime_config
from aos.runtime.state import Sandbox, SandboxState
from aos.runtime.users import resolve_user

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.oci.layer import Layer
    from aos.runtime.backends.supervised.disk import Disk
    from aos.runtime.backends.supervised.ending import Ends
    from aos.runtime.backends.supervised.host import Host
    from aos.runtime.backends.supervised.removal import Removal
    from aos.runtime.backends.supervised.user_ids import UserIds
    from aos.runtime.cdi import Edits
    from aos.runtime.spec import AgentSpec, Limits, Mount

__all__ = ["Making"]

_OPEN_FILES = 1_048_576
_REFUSED = (errno.EINVAL, errno.ERANGE, errno.EBUSY)
"""How a cgroup file says that it does not take a number."""


class Making:
    def __init__(self, host: Host, ends: Ends, removal: Removal) -> None:
        self._host = host
        self._ends = ends
        self._removal = removal
        self._starting: set[SandboxId] = set()

    async def create(self, id: SandboxId, spec: AgentSpec, image: Path | None = None) -> Sandbox:
        """`image`: of a checkpoint that `start` goes on from; FailedPrecondition `checkpoint-invalid`."""
        if image is not None:
            check_image(image)
        tools, directory = self._host.tools(), self._host.sandboxes / id
        tool = self._host.tool
        check_spec(spec)
        seccomp, options = self._host.seccomp_profile(spec.confinement), tool.options(spec)
        devices = self._host.devices(spec.confinement.devices)
        spec = devices.on(spec)
        layers = await self._lowers(spec.rootfs.layers)
        tree = LayerTree([*layers, *filter(None, (spec.rootfs.upper,))])
        spec = replace(spec, mounts=resolved_mounts(spec, tree))
        check_command(spec.process, tree, [mount.target.strip("/") for mount in spec.mounts])
        trees = {
            mount.target: await self._lowers(mount.layers) for mount in spec.mounts if mount.kind == "layers"
        }
        being_made = BeingMade(directory)
        group = self._host.group(id)
        grouping = asyncio.create_task(self._group(id, tool.group_limits(spec.limits)))
        conmon: Conmon | None = None
        users: UserIds | None = None
        network: Connecting | None = None
        try:
            chosen = choose_ids(self._host, directory, spec, self._host.content.snapshots.directory)
            users, why = (None, chosen) if isinstance(chosen, str) else (chosen, "")
            network = await connecting(self._host, directory, spec, users, own_loopback=tool.own_loopback)
            disk = None if spec.rootfs.size is None else await make_disk(directory, spec.rootfs.size)
            mounts = self._prepare(
                directory, spec, tree, layers, trees, seccomp, users, disk, network, devices
            )
            log = spec.log or directory / LOG
            if not tool.own_group:  # conmon is started inside
                await asyncio.shield(grouping)
            conmon = await Conmon.launch(
                conmon=tools[1],
                runtime=[tools[0], "--root", str(self._host.states), *options],
                id=id,
                unique=id,
                bundle=directory,
                process=spec.process,
                log=log,
                leave_stdin_open=spec.leave_stdin_open,
                exec_spec=None,
                enter=network.entering(separate_mounts),
                inside=None if tool.own_group else functools.partial(self._host.cgroups.spawn_inside, group),
                furnish=mounts.mount,
            )
            conmon.release()
            network.begin()
            await asyncio.shield(grouping)  # until it is limited, nobody takes it for one that was made
            # What is mounted for the sandbox alone is seen through a process that sees it.
            seen_by = f"/proc/{conmon.pid}/root" if disk is not None else ""
            record = Record(
                conmon.pid,
                process_start(conmon.pid) or "",
                spec.process.terminal,
                tuple(map(str, layers)),
                f"{seen_by}{mounts.overlays[0].upper}",
                str(log),
                tools[0],
                options,
                str(image or ""),
                users.ids.uids[0][1:] if users is not None else (),
                why,
            )
            record.write(directory)
            pid = await conmon.created(self._host.config.create_seconds)
            await network.finish()
        except BaseException as error:
            # runc and crun take their group along, and the count with it, but say the word.
            starved = isinstance(error, ToolFailed) and (
                "OOM" in str(error) or self._host.cgroups.oom_kills(group) > 0
            )
            while not grouping.done():  # its thread goes on, whatever becomes of us
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({grouping})
            if not grouping.cancelled():
                grouping.exception()  # which is `error`, if there is one
            if network is not None:
                await network.give_up()
            being_made.end()
            await self._removal.give_up(id, conmon)
            if starved:
                raise too_little_memory(spec.limits) from error
            if isinstance(error, ToolFailed):
                raise failure(str(error), spec.process.args[0], LayerTree(layers)) from error
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                from aos.content.blobs import storage_error

                raise storage_error(error, directory) from error
            raise
        finally:
            being_made.end()
            if users is not None:
                users.close()
        self._ends.watch(id, record)
        return Sandbox(id, SandboxState.CREATED, pid, users=record.users)

    async def _group(self, id: SandboxId, limits: Limits) -> None:
        """Make its control group: dozens of short system calls, in a thread, so that other work goes on beside."""
        try:
            await asyncio.to_thread(self._host.cgroups.create, self._host.group(id), limits)
        except OSError as error:
            if error.errno in _REFUSED:
                raise refused_limits(error, id) from error
            raise

    async def _lowers(self, layers: tuple[Layer, ...]) -> tuple[Path, ...]:
        """Unpacked layers. Only what may be missing needs a thread."""
        snapshots, identity = self._host.content.snapshots, IdMap.identity()
        known = snapshots.known(layers, identity)
        return known if known is not None else await asyncio.to_thread(snapshots.ensure, layers, identity)

    def _prepare(
        self,
        directory: Path,
        spec: AgentSpec,
        image: LayerTree,
        layers: tuple[Path, ...],
        trees: Mapping[str, tuple[Path, ...]],
        seccomp: msgspec.Raw | None,
        users: UserIds | None,
        disk: Disk | None,
        network: Connecting,
        devices: Edits,
    ) -> Mounts:
        """Write the bundle; what it takes for granted that is mounted when conmon starts."""
        place, ids = (STAGE, users.ids) if users is not None else (directory, IdMap.identity())
        snapshots, rootfs = self._host.content.snapshots.directory, place / "rootfs"
        if spec.rootfs.upper is None:
            written, root = disk.directory if disk is not None else directory, _root_of(layers[-1], ids)
            overlay = Overlay(snapshots, layers, rootfs, written / "upper", written / "work", root)
        else:
            upper = spec.rootfs.upper
            work = upper.with_name(upper.name + ".work")
            work.mkdir(exist_ok=True)
            overlay = Overlay(snapshots, layers, rootfs, upper, work)
        user = resolve_user(spec.process.user, image)
        staging = Staging(place, owner=ids.to_host(user.uid, user.gid), root=ids.to_host(0, 0))
        overlays, found = [overlay], dict[str, Path]()
        for number, mount in enumerate(mount for mount in spec.mounts if mount.kind == "layers"):
            tree = place / f"layers-{number}"
            overlays.append(Overlay(snapshots, trees[mount.target], tree))
            found[mount.target] = tree / _find(mount, LayerTree(trees[mount.target]))
        staging.add(spec.mounts, found)
        files = staging.add_files(network.files(), image)
        sysfs = None
        if network.namespace is None and in_user_namespace():  # nor may the user mount the host's
            staging.bind("/sys", Path("/sys"), read_only=True, mapped=False)
        elif users is not None and network.namespace is None:  # which its user namespace does not own
            sysfs = place / "sys"
            staging.sources["/sys"] = str(sysfs)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        config = runtime_config(
            replace(spec, mounts=tuple(staging.mounts)),
            user=user,
            rootfs=str(rootfs),
            cgroup=self._host.payload(SandboxId(directory.name)),
            files=files,
            sources=staging.sources,
            seccomp=seccomp,
            open_files=_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES),
            ids=users.ids if users is not None else None,
            user_namespace=str(USER_NAMESPACE),
            network=network.namespace,
        )
        devices.apply(config)
        self._host.tool.configure(config, spec)
        (directory / "config.json").write_bytes(msgspec.json.encode(config))
        namespace = users.namespace if users is not None else None
        return Mounts(
            place, tuple(overlays), staging.binds, staging.files, staging.nested, namespace, disk, sysfs
        )

    async def start(self, id: SandboxId) -> None:
        state = self._host.state(id)
        if not state.can_start() or id in self._starting:
            raise wrong_state(id, SandboxState.RUNNING if state.can_start() else state, "start")
        self._starting.add(id)
        try:
            await self._start(id)
        finally:
            self._starting.discard(id)

    async def _start(self, id: SandboxId) -> None:
        record = Record.read(self._host.sandboxes / id)
        assert record is not None  # a created sandbox has one
        try:
            await self._host.tool.start(self._host, id, record, self._ends.watch(id, record))
        except ToolFailed as error:
            if record.image:
                raise bad_image(Path(record.image), str(error).rpartition(": ")[2]) from error
            self._host.directory(id)  # NotFound when it was deleted meanwhile
            raise failure(str(error), self._command(id), record.tree()) from error

    def _command(self, id: SandboxId) -> str:
        config = msgspec.json.decode((self._host.sandboxes / id / "config.json").read_bytes())
        return str(config["process"]["args"][0])


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


def _root_of(layer: Path, ids: IdMap) -> tuple[int, int, int]:
    """Owner and mode of the sandbox's root directory: those of the topmost layer's."""
    status = layer.stat()
    return *ids.to_host(status.st_uid, status.st_gid), status.st_mode & 0o7777
