"""One build, from request to package.

Everything that can be known without executing is found out first, and without an event loop: an unchanged build
ends there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from aos import errors
from aos.build.bases import base_state, find_base
from aos.build.cache.kept import Kept
from aos.build.cache.local import Cache
from aos.build.cache.lookup import Lookup
from aos.build.context.files import Context, open_context
from aos.build.context.inputs import Inputs, gather_inputs
from aos.build.explain.records import Records
from aos.build.image import image_config
from aos.build.lock.locked import NO_LOCK, wanted
from aos.build.plan.graph import Plan, State, known_stage, make_plan, needed_stages
from aos.build.progress.events import Note, Planned, Progress, Quiet, Warned, human_size
from aos.build.solve.interrupt import run_interruptibly, stopped_by_signals
from aos.build.solve.outcome import record_of
from aos.build.solve.results import Results
from aos.errors import DataLoss, ResourceExhausted
from aos.package import Package, assemble, write_layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Literal

    from aos.build.plan.shown import Outline
    from aos.build.request import BuildRequest, BuildServices
    from aos.content.leases import Lease

__all__ = ["Session", "build", "build_blocking", "build_platform", "open_session", "outline"]

_FULL = (errno.ENOSPC, errno.EDQUOT)


async def build(request: BuildRequest, services: BuildServices, progress: Progress) -> Package:
    """Build, and tag the package in the registry. Nothing is left behind when this raises or is cancelled.

    Raise what steps, bases and inputs raise, and ResourceExhausted (`disk-full`).
    """
    with open_session(request, services, progress) as session, session.remembered():
        if not session.results.ready():
            await session.execute()
        return session.finish()


def build_blocking(request: BuildRequest, services: BuildServices, progress: Progress) -> Package:
    """`build` for a command: an event loop is started only when something must be executed.

    Ctrl-C and SIGTERM end it in order (KeyboardInterrupt, Aborted `build-stopped`).
    """
    with (
        stopped_by_signals(),
        open_session(request, services, progress) as session,
        session.remembered(),
    ):
        if not session.results.ready():
            run_interruptibly(session.execute)
        return session.finish()


def outline(request: BuildRequest, services: BuildServices) -> Outline:
    """The plan of a build, with the keys that are known and what is cached; nothing is executed or kept."""
    from aos.build.plan.shown import outline_of

    with open_session(request, services, Quiet()) as session:
        metadata = request.definition.metadata
        return outline_of(f"{metadata.name}:{metadata.version}", session.results)


@contextlib.contextmanager
def open_session(request: BuildRequest, services: BuildServices, progress: Progress) -> Iterator[Session]:
    """Look at everything that a build reads and at what is known of it; nothing is executed yet."""
    try:
        with services.content.leases.hold("build") as lease:
            yield Session(request, services, progress, lease)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ResourceExhausted(
            f"the disk of {services.directory} is full; the build was given up and nothing of it was kept",
            code="disk-full",
            hint="free space (`aos prune`), or set AOS_ROOT to a larger disk",
        ) from error


class Session:
    def __init__(
        self, request: BuildRequest, services: BuildServices, progress: Progress, lease: Lease
    ) -> None:
        self._request = request
        self._services = services
        self._progress = progress
        self._lease = lease
        self._id = request.id or services.ids.fresh()
        self._began = services.clock.monotonic()
        self._at = services.clock.now()
        self._digest = ""
        definition, target = request.definition, request.target
        for stage in request.fresh_stages:
            known_stage(definition, stage)
        self._context: Context = open_context(
            request.context, memory=services.directory / "digests", began=self._at
        )
        self._lock = request.lock or NO_LOCK
        self._inputs: Inputs = gather_inputs(
            definition, self._context, services.plugins, target, known=self._lock.known
        )
        stages = needed_stages(definition, target)
        wants = wanted(definition, self._inputs, services.plugins, stages)
        self._locks = self._lock.steps(wants)
        for place, lock in self._locks.items():
            self._inputs.components[place] = lock.components(self._inputs.components.get(place, {}))
        self.kept = Kept(services.content, lease.add)
        plan = make_plan(
            definition,
            self._inputs.components,
            platform=build_platform(request.platform),
            epoch=request.epoch,
            target=target,
            compression=request.compression,
        )
        self._bases: dict[str, Package] = {}
        states: dict[int, State] = {}
        lookup = Lookup(
            plan,
            states,
            Cache(services.directory / "cache", services.content, self._warn),
            services.content,
            package=definition.metadata.name,
            sources=request.cache_from,
            forced=lambda vertex: not request.use_cache or vertex.stage in request.fresh_stages,
            hold=lease.add,
            warn=self._warn,
        )
        self.results = Results(plan, states, lookup, progress)
        progress.emit(Planned(plan.vertices))
        bases = self._find_bases(plan)
        self._lock.check(definition, stages, wants, bases, plan.platform)
        self.results.walk()

    async def execute(self) -> None:
        """Execute what is not known yet."""
        from aos.build.solve.execute import Executor
        from aos.build.solve.flight import Flights
        from aos.build.solve.solve import solve
        from aos.build.solve.threads import in_thread
        from aos.build.steps.secrets import Secrets
        from aos.build.steps.task import Surroundings
        from aos.build.workspace.sweep import sweep
        from aos.build.workspace.workspace import open_workspace, plain_umask

        services, definition, results = self._services, self._request.definition, self.results
        flights = Flights(services.directory / "locks")
        runtime = services.runtime()
        await sweep(services.directory, runtime)
        with plain_umask(), open_workspace(services.directory / "work", self._id) as workspace:
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
                kept=self.kept,
                locks=self._locks,
                ssh={agent.id: agent for agent in self._request.ssh},
                config_env=definition.config.env,
                config_work_dir=definition.config.work_dir,
            )
            executor = Executor(self.results, around, flights, self._progress, services.clock)
            jobs = self._request.jobs or os.cpu_count() or 1
            while True:
                try:
                    await solve(results.plan, results.states, executor.execute, jobs=jobs)
                    await in_thread(lambda: results.lookup.fetch([results.final]))
                    return await in_thread(self._bound_cache)
                except DataLoss as error:
                    results.disown(error)

    def _bound_cache(self) -> None:
        """Only a build that made something new has to give way to it."""
        from aos.build.cache.prune import Policy, prune_cache

        services = self._services
        if services.cache_size:
            policy = Policy(max_size=services.cache_size, filters={"kind": "result"})
            prune_cache(services.directory, services.content, policy, services.clock.now())

    def finish(self) -> Package:
        """Assemble the package from the final state, tag it, and write it out where asked."""
        definition, services, plan = self._request.definition, self._services, self.results.plan
        state = self.results.final
        base = self._bases[state.base].image if state.base else None
        package = assemble(
            services.content.blobs,
            definition_json=definition.to_json(),
            image=image_config(definition, base, platform=plan.platform, epoch=plan.epoch),
            layers=state.layers,
        )
        self._lease.add(package.manifest_digest)
        name, version = definition.metadata.name, definition.metadata.version
        target = f"-{self._request.target}" if self._request.target else ""
        for reference in self._request.tags or (f"{name}:{version.replace('+', '_')}{target}",):
            entry = services.registry.tag(
                reference, package.manifest_digest, name=name, version=version, size=package.size
            )
            self._progress.emit(
                Note(f"built {entry.reference} {package.manifest_digest}, {human_size(package.size)}")
            )
        if self._request.output is not None:
            self._write(package, self._request.output)
            self._progress.emit(Note(f"wrote {self._request.output}"))
        self._digest = package.manifest_digest
        for store in self._request.cache_to:
            count = self.results.lookup.export(store)
            self._progress.emit(Note(f"exported {count} results to the cache {store.name}"))
        return package

    def _write(self, package: Package, output: Path) -> None:
        try:
            write_layout(package, self._services.content.blobs, output)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise ResourceExhausted(
                f"the disk of {str(output)!r} is full; the package is in the local registry all the same",
                code="disk-full",
                hint="free space there, or name another directory",
            ) from error

    @contextlib.contextmanager
    def remembered(self) -> Iterator[None]:
        """Keep a record of the build, whatever comes of it; it must not fail for the record's sake."""
        outcome: Literal["built", "failed", "stopped"] = "stopped"
        try:
            yield
            outcome = "built"
        except Exception:
            outcome = "failed"
            raise
        finally:
            try:
                self._remember(outcome)
            except OSError as error:
                self._warn(f"the build cannot be explained later: {error}")

    def _remember(self, outcome: Literal["built", "failed", "stopped"]) -> None:
        record = record_of(
            self.results,
            id=self._id,
            at=self._at,
            package=self._request.definition.metadata.name,
            outcome=outcome,
            seconds=self._services.clock.monotonic() - self._began,
            digest=self._digest,
        )
        Records(self._services.directory / "records").add(record, self._inputs.selected)

    def _find_bases(self, plan: Plan) -> dict[str, str]:
        """The digests of the plan's bases, as they are named."""
        services, digests = self._services, {}
        for vertex in plan.vertices:
            if vertex.step is not None:
                continue
            package = find_base(
                vertex,
                self._context.tree.root,
                services.content.blobs,
                services.registry,
                self._lease.add,
                locked=self._lock.base(vertex.base),
            )
            self._bases[package.manifest_digest] = package
            digests[vertex.base] = str(package.manifest_digest)
            self.results.set_base(vertex, base_state(package, vertex.created_by), package.size)
        return digests

    def _warn(self, text: str) -> None:
        self._progress.emit(Warned(text))


def build_platform(asked: str) -> str:
    """The host's platform. Raise NotImplemented (`platform-foreign`) when another is asked for."""
    from aos.oci.index import host_platform

    platform = host_platform()
    host = f"{platform.os}/{platform.architecture}"
    if asked not in ("", host):
        raise errors.NotImplemented(
            f"this host is {host} and cannot build for {asked!r:.60}",
            code="platform-foreign",
            hint=f"build on a host of that platform; steps run natively, so --platform {host} is what works here",
            platform=asked,
        )
    return host
