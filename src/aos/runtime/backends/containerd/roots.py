"""Root file systems from containerd's snapshots: what its shim is to mount, and how to look into that before.

For a sandbox with user ids of its own the directories of the layers are shown once more with their ids mapped, on the
host until its root is mounted on them; the root's own upper directory belongs to the sandbox's root user.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.content.protocol import IdMap
from aos.content.tree import LayerTree
from aos.errors import FailedPrecondition
from aos.runtime.backends.containerd.layers import LABEL_INSTALLATION
from aos.runtime.backends.containerd.mounts import directories
from aos.runtime.backends.supervised.disk import make_disk
from aos.runtime.backends.supervised.mounts import Bind, Mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aos.ids import SandboxId
    from aos.oci.layer import Layer
    from aos.runtime.backends.containerd.host import Host
    from aos.runtime.backends.supervised.user_ids import UserIds
    from aos.runtime.spec import AgentSpec

__all__ = ["Root", "Roots", "mapped"]


@dataclass(frozen=True, slots=True)
class Root:
    mounts: Sequence[Any]
    """containerd.types.Mount."""
    tree: LayerTree
    lowers: tuple[Path, ...] = ()
    """The directories of the layers, base first, where it is an overlay of such."""
    upper: Path | None = None
    """That of the sandbox's own, with `lowers`."""

    @property
    def layers(self) -> Path | None:
        """A directory that has all layers in it."""
        return Path(os.path.commonpath(self.lowers)) if self.lowers else None

    def shown_to(self, users: UserIds, place: Path) -> Sequence[Any]:
        """What to mount instead, for a sandbox with these ids; `place` does not exist yet."""
        assert self.upper is not None
        owner = self.lowers[-1].stat()
        os.chown(self.upper, *users.ids.to_host(owner.st_uid, owner.st_gid))
        return mapped(self.mounts, self.lowers, users, place)


class Roots:
    def __init__(self, host: Host) -> None:
        self._host = host

    async def make(self, id: SandboxId, spec: AgentSpec) -> Root:
        """Prepare the sandbox's snapshot. FailedPrecondition `snapshotter-unfit` where it can have no upper directory of
        ours, and what `make_disk` raises."""
        upper, size = spec.rootfs.upper, spec.rootfs.size
        own = upper is None and size is None
        mounts = await self.snapshot("Prepare" if own else "View", id, "", spec.rootfs.layers)
        found = directories(mounts)
        if own:
            if found is None:  # not directories: what our own store has unpacked looks the same
                ensure = self._host.content.snapshots.ensure
                found = await asyncio.to_thread(ensure, spec.rootfs.layers, IdMap.identity())
                return Root(mounts, LayerTree(found))
            if mounts[0].type != "overlay":
                return Root(mounts, LayerTree(found))
            return Root(mounts, LayerTree(found), found[:-1], found[-1])
        if found is None:
            raise FailedPrecondition(
                f"the snapshotter {self._host.config.snapshotter} keeps no directories for an upper one of ours",
                code="snapshotter-unfit",
                hint="set [containerd] snapshotter to overlayfs, or use another runtime",
            )
        tree = LayerTree(found)
        if size is not None:  # detached once the root is mounted on it, which keeps it
            disk = await make_disk(self._host.sandboxes / id, size)
            disk.mount()
            upper, work = disk.directory / "upper", disk.directory / "work"
            upper.mkdir(mode=0o755)
        else:
            assert upper is not None
            work = upper.with_name(upper.name + ".work")
            tree = LayerTree([*found, upper])
        work.mkdir(exist_ok=True)
        return Root([_overlay(found, upper, work)], tree, found, upper)

    async def snapshot(self, kind: str, id: SandboxId, suffix: str, layers: Sequence[Layer]) -> Sequence[Any]:
        """The mounts of a snapshot on top of layers, which come in where they are missing. It is a root of containerd's
        collection, and goes with the sandbox."""
        from aos.runtime.backends.containerd._api.services import snapshots_pb2

        chain = await self._host.layers.ensure(layers)
        snapshots = await self._host.connection.service("Snapshots")
        request = getattr(snapshots_pb2, f"{kind}SnapshotRequest")(
            snapshotter=self._host.config.snapshotter,
            key=self._host.snapshot(id) + suffix,
            parent=chain,
            labels={
                "containerd.io/gc.root": "sandbox",
                LABEL_INSTALLATION: self._host.config.installation,
            },
        )
        answer = await snapshots.call(kind, request)
        return list(answer.mounts)


def mapped(mounts: Sequence[Any], lowers: Sequence[Path], users: UserIds, place: Path) -> Sequence[Any]:
    """The mounts of a snapshot with `lowers` as a sandbox with these ids is to see them: at `place`, read-only."""
    from aos.runtime.backends.containerd._api.types.mount_pb2 import Mount

    common = Path(os.path.commonpath(lowers))
    shown = Bind(common, place, read_only=True)
    Mounts(place.parent, (), (shown,), user_namespace=users.namespace).mount()
    paths = [place / lower.relative_to(common) for lower in lowers]
    [mount] = mounts
    if mount.type == "bind":
        return [Mount(type="bind", source=str(paths[0]), options=mount.options)]
    options = [option for option in mount.options if not option.startswith("lowerdir=")]
    return [Mount(type=mount.type, source=mount.source, options=[_lowerdir(paths), *options])]


def _overlay(lowers: Sequence[Path], upper: Path, work: Path) -> Any:
    from aos.runtime.backends.containerd._api.types.mount_pb2 import Mount

    options = [
        _lowerdir(lowers),
        f"upperdir={upper}",
        f"workdir={work}",
        "index=off",
        "redirect_dir=off",
        "metacopy=off",
    ]
    return Mount(type="overlay", source="overlay", options=options)


def _lowerdir(lowers: Sequence[Path]) -> str:
    return "lowerdir=" + ":".join(str(path) for path in reversed(lowers))
