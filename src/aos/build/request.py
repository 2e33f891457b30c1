"""What somebody asks of a build, and what a build works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.build.plugins import Plugins

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from aos.agentfile.definition import Definition
    from aos.build.cache.store import CacheStore
    from aos.build.lock.locked import LockUse
    from aos.build.steps.secrets import SecretSource
    from aos.build.steps.ssh_agents import SshAgent
    from aos.clock import Clock
    from aos.content.compression import Compression
    from aos.content.store import ContentStore
    from aos.ids import IdSource
    from aos.oci.reference import Reference
    from aos.registry.protocol import PackageRegistry
    from aos.runtime.protocol import Runtime

__all__ = ["BuildRequest", "BuildServices"]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What somebody asks for."""

    definition: Definition
    context: Path
    """The directory that `copy` reads."""
    tags: tuple[Reference, ...] = ()
    """What to call the package; none: `<name>:<version>` of the metadata, and `-<target>` when there is one."""
    output: Path | None = None
    """Where to write the package as an OCI layout too."""
    target: str | None = None
    """The stage that becomes the package; None: the last one."""
    platform: str = ""
    """`os/architecture`; "": the host's, the only one that can be built for."""
    use_cache: bool = True
    fresh_stages: frozenset[str] = frozenset()
    """Stages whose steps are executed whatever is cached."""
    cache_from: tuple[CacheStore, ...] = ()
    """Where else to look for results."""
    cache_to: tuple[CacheStore, ...] = ()
    """Where to leave this build's results."""
    epoch: int = 0
    """The date of everything the build makes: seconds since 1970."""
    compression: Compression = "gzip"
    """Of the layers that it makes."""
    secrets: tuple[SecretSource, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    jobs: int = 0
    """Vertices executed at once; 0: as many as there are CPUs."""
    lock: LockUse | None = None
    """What decides what the Agentfile's names stand for; None: what they mean today."""
    id: str = ""
    """Of the build, and of its record: 12 hex digits; "": a fresh one."""


@dataclass(frozen=True, slots=True)
class BuildServices:
    """What a build works with."""

    content: ContentStore
    registry: PackageRegistry
    runtime: Callable[[], Runtime]
    """Where steps run; asked for when the first one must."""
    directory: Path
    """Persistent state of builds: `cache/`, `locks/`, `mounts/`, `records/`, `work/`."""
    environ: Mapping[str, str]
    clock: Clock
    ids: IdSource
    plugins: Plugins = field(default_factory=Plugins)
    cache_size: int = 0
    """Bytes of layers that the cache may keep, removed by least recent use after builds; 0: no limit."""
