"""One build, from request to package.

Everything that can be known without executing is found out first, and without an event loop: an unchanged build
ends there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.build.bases import base_state, find_base
from aos.build.cache import Cache
from aos.build.image import image_config
from aos.build.inputs import Inputs, gather_inputs
from aos.build.lookup import find_cached
from aos.build.plan import EMPTY, Plan, State, make_plan
from aos.build.plugins import Plugins
from aos.build.progress import Cached, Note, Planned, Progress, human_size
from aos.build.select import Context, open_context
from aos.errors import InvalidArgument, ResourceExhausted
from aos.package import Package, assemble, write_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from aos.agentfile.definition import Definition
    from aos.build.secrets import SecretSource
    from aos.build.ssh_agents import SshAgent
    from aos.clock import Clock
    from aos.content.leases import Lease
    from aos.content.store import ContentStore
    from aos.ids import IdSource
    from aos.oci.reference import Reference
    from aos.registry.protocol import PackageRegistry
    from aos.runtime.protocol import Runtime

__all__ = ["BuildRequest", "BuildServices", "build", "build_blocking", "source_date_epoch"]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What somebody asks for."""

    definition: Definition
    context: Path
    """The directory that `copy` reads."""
    tag: Reference | None = None
    """What to call the package; None: `<name>:<version>` of the metadata."""
    output: Path | None = None
    """Where to write the package as an OCI layout too."""
    use_cache: bool = True
    epoch: int = 0
    """The date of everything the build makes: seconds since 1970."""
    secrets: tuple[SecretSource, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    jobs: int = 0
    """Vertices executed at once; 0: as many as there are CPUs."""


@dataclass(frozen=True, slots=True)
class BuildServices:
    """What a build works with."""

    content: ContentStore
    registry: PackageRegistry
    runtime: Callable[[], Runtime]
    """Where steps run; asked for when the first one must."""
    directory: Path
    """Persistent state of builds: `cache/`, `mounts/`, `work/`."""
    environ: Mapping[str, str]
    clock: Clock
    ids: IdSource
    plugins: Plugins = field(default_factory=Plugins)


async def build(request: BuildRequest, services: BuildServices, progress: Progress) -> Package:
    """Build, and tag the package in the registry. Nothing is left behind when this raises or is cancelled.

    Raise what steps, bases and inputs raise, and ResourceExhausted (`disk-full`).
    """
    with _session(request, services, progress) as session:
        if not session.complete:
            await session.execute()
        return session.finish()


def build_blocking(request: BuildRequest, services: BuildServices, progress: Progress) -> Package:
    """`build` for a command: an event loop is started only when something must be executed.

    Ctrl-C and SIGTERM end it in order (KeyboardInterrupt, Aborted `build-stopped`).
    """
    with _session(request, services, progress) as session:
        if not session.complete:
            from aos.build.interrupt import run_interruptibly

            run_interruptibly(session.execute)
        return session.finish()


def source_date_epoch(environ: Mapping[str, str]) -> int:
    """SOURCE_DATE_EPOCH of the environment, else 0. Raise InvalidArgument (`source-date-epoch-invalid`).

    Source: reproducible-builds.org, "SOURCE_DATE_EPOCH specification"; a tar header ends at 8^11 - 1."""
    text = environ.get("SOURCE_DATE_EPOCH") or "0"
    if not text.isascii() or not text.isdigit() or int(text) >= 8**11:
        raise InvalidArgument(
            f"SOURCE_DATE_EPOCH is {text!r}, which is not a number of seconds since 1970",
            code="source-date-epoch-invalid",
            hint="unset it, or set it to a whole number: SOURCE_DATE_EPOCH=$(git log -1 --pretty=%ct)",
        )
    return int(text)


@contextlib.contextmanager
def _session(request: BuildRequest, services: BuildServices, progress: Progress) -> Iterator[_Session]:
    try:
        with services.content.leases.hold("build") as lease:
            yield _Session(request, services, progress, lease)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceExhausted(
            f"the disk of {services.directory} is full; the build was given up and nothing of it was kept",
            code="disk-full",
            hint="free space (`aos prune`), or set AOS_ROOT to a larger disk",
        ) from error


class _Session:
    def __init__(
        self, request: BuildRequest, services: BuildServices, progress: Progress, lease: Lease
    ) -> None:
        self._request = request
        self._services = services
        self._progress = progress
        self._lease = lease
        self._cache = Cache(services.directory / "cache", services.content)
        self._context: Context = open_context(
            request.context, memory=services.directory / "digests", began=services.clock.now()
        )
        self._inputs: Inputs = gather_inputs(request.definition, self._context, services.plugins)
        self._plan: Plan = make_plan(
            request.definition, self._inputs.components, platform=_platform(), epoch=request.epoch
        )
        self._bases: dict[str, Package] = {}
        self._states: dict[int, State] = {}
        progress.emit(Planned([vertex.label for vertex in self._plan.vertices]))
        self._find_bases()
        if request.use_cache:
            self._find_cached()

    @property
    def complete(self) -> bool:
        return len(self._states) == len(self._plan.vertices)

    async def execute(self) -> None:
        """Execute what is not known yet."""
        from aos.build.execute import Executor
        from aos.build.secrets import Secrets
        from aos.build.solve import solve
        from aos.build.steps.task import Surroundings, need_root
        from aos.build.sweep import sweep
        from aos.build.workspace import open_workspace

        need_root()
        services, definition = self._services, self._request.definition
        work, runtime = services.directory / "work", services.runtime()
        await sweep(work, runtime)
        with open_workspace(work, services.ids.fresh()) as workspace:
            around = Surroundings(
                content=services.content,
                runtime=runtime,
                context=self._context,
                workspace=workspace,
                mounts=services.directory / "mounts",
                environ=services.environ,
                ids=services.ids,
                selected=self._inputs.selected,
                requirements=self._inputs.requirements,
                plugins=services.plugins,
                secrets=Secrets.of(self._request.secrets, services.environ),
                ssh={agent.id: agent for agent in self._request.ssh},
                config_env=definition.config.env,
                config_work_dir=definition.config.work_dir,
            )
            executor = Executor(
                self._plan,
                self._states,
                around,
                self._cache,
                self._progress,
                services.clock,
                self._lease.add,
                use_cache=self._request.use_cache,
            )
            jobs = self._request.jobs or os.cpu_count() or 1
            await solve(self._plan, self._states, executor.execute, jobs=jobs)

    def finish(self) -> Package:
        """Assemble the package from the final state, tag it, and write it out where asked."""
        state = EMPTY if self._plan.final is None else self._states[self._plan.final]
        definition, services = self._request.definition, self._services
        base = self._bases[state.base].image if state.base else None
        package = assemble(
            services.content.blobs,
            definition_json=definition.to_json(),
            image=image_config(definition, base, platform=self._plan.platform, epoch=self._plan.epoch),
            layers=state.layers,
        )
        self._lease.add(package.manifest_digest)
        name, version = definition.metadata.name, definition.metadata.version
        reference = self._request.tag or f"{name}:{version.replace('+', '_')}"
        entry = services.registry.tag(
            reference, package.manifest_digest, name=name, version=version, size=package.size
        )
        self._progress.emit(
            Note(f"built {entry.reference} {package.manifest_digest}, {human_size(package.size)}")
        )
        if self._request.output is not None:
            write_layout(package, services.content.blobs, self._request.output)
            self._progress.emit(Note(f"wrote {self._request.output}"))
        return package

    def _find_bases(self) -> None:
        services = self._services
        for vertex in self._plan.vertices:
            if vertex.step is not None:
                continue
            package = find_base(
                vertex,
                self._context.tree.root,
                services.content.blobs,
                services.registry,
                self._lease.add,
            )
            self._bases[package.manifest_digest] = package
            self._states[vertex.index] = base_state(package, vertex.created_by)
            self._progress.emit(Cached(vertex.index))

    def _find_cached(self) -> None:
        """Walk the plan as far as earlier builds have been."""
        for vertex in self._plan.vertices:
            if vertex.index in self._states or not all(parent in self._states for parent in vertex.parents):
                continue
            state = find_cached(vertex, self._plan, self._states, self._cache, self._lease.add)
            if state is not None:
                self._states[vertex.index] = state
                self._progress.emit(Cached(vertex.index))


def _platform() -> str:
    from aos.oci.index import host_platform

    platform = host_platform()
    return f"{platform.os}/{platform.architecture}"
