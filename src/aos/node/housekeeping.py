"""What takes space, and giving back what nothing uses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from aos.content.gc import collect
from aos.kernel.process.records import AgentState
from aos.oci.digest import Digest
from aos.package import package_children

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from aos.content.store import ContentStore
    from aos.node.node import Node
    from aos.node.pools import Pools
    from aos.registry.protocol import PackageRegistry

__all__ = ["BuildCache", "Housekeeping"]


class BuildCache(Protocol):
    """What builds keep beside the content store; the node only measures and drops it."""

    def size(self) -> tuple[int, int]:
        """Entries, and bytes on disk."""
        ...

    def forget(self) -> None: ...

    async def sweep(self) -> None:
        """Remove what builds that were killed have left."""
        ...


class Housekeeping:
    def __init__(
        self,
        node: Node,
        content: ContentStore,
        registry: PackageRegistry,
        builds: BuildCache,
        pools: Pools,
        root: Path,
    ) -> None:
        self._node = node
        self._builds = builds
        self._content = content
        self._registry = registry
        self._pools = pools
        self._root = root

    async def sizes(self) -> dict[str, dict[str, int]]:
        """Count and bytes on disk by kind."""
        return await asyncio.to_thread(self._sizes)

    def _sizes(self) -> dict[str, dict[str, int]]:
        blobs = list(self._content.blobs.list())
        packages = self._registry.list()
        sandboxes = list((self._root / "sandboxes").glob("*/*"))
        waiting = [one for one in sandboxes if one.name in self._pools.sandboxes()]
        journal = self._node.journal.info()
        cached, cache_bytes = self._builds.size()
        return {
            "packages": {"count": len(packages), "bytes": sum(entry.size for entry in packages)},
            "blobs": {"count": len(blobs), "bytes": sum(blob.size for blob in blobs)},
            "unpacked layers": {
                "count": sum(1 for _ in self._content.snapshots.directory.iterdir()),
                "bytes": self._content.snapshots.size(),
            },
            "build cache": {"count": cached, "bytes": cache_bytes},
            "sandboxes": {"count": len(sandboxes), "bytes": sum(map(_tree_size, sandboxes))},
            "of these in pools": {"count": len(waiting), "bytes": sum(map(_tree_size, waiting))},
            "journal": {"count": journal.events, "bytes": journal.bytes},
        }

    async def prune(self, *, everything: bool) -> dict[str, Any]:
        """Remove agents that have finished, and content that no package, agent or build-cache entry needs;
        with `everything` also packages that no agent runs, and the build cache."""
        agents = []
        for agent in list(self._node.machine.state.agents.values()):
            if agent.state is AgentState.EXITED:
                await self._node.commit(
                    self._node.machine.remove(agent.id, force=False, at=self._node.clock.now())
                )
                agents.append(agent.id)
        packages = []
        if everything:
            used = self._used()
            for entry in self._registry.list():
                if entry.digest not in used:
                    self._registry.remove(entry.reference)
                    packages.append(entry.reference)
            await asyncio.to_thread(self._builds.forget)
        await self._pools.refresh()
        await self._builds.sweep()
        collected = await asyncio.to_thread(self._collect)
        return {
            "agents": agents,
            "packages": packages,
            "blobs": collected.blobs,
            "unpacked_layers": collected.snapshots,
            "bytes": collected.bytes,
        }

    def _used(self) -> set[Digest]:
        """The packages of agents."""
        return {Digest(agent.program.digest) for agent in list(self._node.machine.state.agents.values())}

    def _mounted(self) -> set[Digest]:
        """And those that sandboxes without an agent have mounted."""
        return {*self._used(), *self._pools.digests()}

    def _collect(self) -> Any:
        def roots() -> Iterable[Digest]:
            return [*self._mounted(), *(entry.digest for entry in self._registry.list())]

        return collect(self._content, roots, package_children(self._content.blobs))


def _tree_size(tree: Path) -> int:
    total = 0
    for path in tree.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue
    return total
