"""`aos build --check-reproducible`: build again where everything is different that must not shape a package.

The second build stands on nothing that the first one made: its store, cache and caches of package managers are its
own and lie in a workspace, so whatever happens nothing of them is left (`workspace.py`). Its sandboxes are named
after the same build, and are swept like those of any other. What is different is listed in docs/build.md.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from aos.agentfile.pins import digests_of
from aos.build.lock.locked import Honour
from aos.build.plan.graph import needed_stages, sources_of
from aos.build.progress.events import Note, Planned, Started, Warned
from aos.build.session import build_blocking
from aos.build.solve.interrupt import stopped_by_signals
from aos.build.workspace.workspace import open_workspace
from aos.errors import AosError, InvalidArgument
from aos.oci.digest import Digest
from aos.package.load import load_package, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from aos.build.plan.graph import Vertex
    from aos.build.progress.events import Event, Progress
    from aos.build.request import BuildRequest, BuildServices
    from aos.content.protocol import Blobs
    from aos.oci.reference import Reference
    from aos.package import Package
    from aos.registry.protocol import Entry, PackageRegistry

__all__ = ["Elsewhere", "build_twice"]

_PIECE = 1 << 20
_PLACES: tuple[Mapping[str, str], ...] = (
    {"TZ": "Asia/Kathmandu", "LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"},
    {"TZ": "America/St_Johns", "LC_ALL": "C", "LANG": "C"},
)


class Elsewhere(Protocol):
    def __call__(self, root: Path, environ: Mapping[str, str]) -> BuildServices:
        """Services with content and state of builds below `root`, and the sandboxes of this installation."""
        ...


def build_twice(
    request: BuildRequest, services: BuildServices, progress: Progress, elsewhere: Elsewhere
) -> Package:
    """Build as `build_blocking` does, then again in other circumstances, and compare.

    Raise FailedPrecondition (`not-reproducible`) with the first differences, and what either build raises; the first
    package stays all the same.
    """
    for secret in request.secrets:
        if secret.file is not None and not secret.file.is_file():
            raise InvalidArgument(
                f"the secret {secret.id!r} is no file that two builds can read",
                code="secret-invalid",
                hint="name a file or a variable",
                secret=secret.id,
            )
    id = request.id or services.ids.fresh()
    request = replace(request, id=id)
    with stopped_by_signals(), services.content.leases.hold("check") as lease:
        package = build_blocking(request, services, progress)
        lease.add(package.manifest_digest)
        progress.emit(Note("checking: building again from nothing, in other circumstances"))
        _await_another_second(services)
        with open_workspace(services.directory / "work", id) as workspace:
            there, again = _elsewhere(request, services, workspace.directory, elsewhere, lease.add)
            try:
                with _another_process_state():
                    second = build_blocking(again, there, _Second(progress))
            except AosError as error:
                error.message = f"when it was built again, {error.message}"
                raise
            if second.manifest_digest != package.manifest_digest:
                from aos.build.reproduce.difference import Built, not_reproducible

                raise not_reproducible(Built(package, services, id), Built(second, there, id))
        progress.emit(Note(f"reproducible: both builds gave {package.manifest_digest}"))
        return package


def _elsewhere(
    request: BuildRequest,
    services: BuildServices,
    directory: Path,
    elsewhere: Elsewhere,
    keep: Callable[[Digest], None],
) -> tuple[BuildServices, BuildRequest]:
    """Another store, time zone, locale, checkout and order of execution; no cache."""
    place = next(place for place in _PLACES if place["TZ"] != services.environ.get("TZ"))
    there = elsewhere(directory / "root", {**services.environ, **place})
    there = replace(there, registry=_Borrowed(services, there.content.blobs, keep))
    if isinstance(request.lock, Honour):  # the files that a lock names are an input, wherever they come from
        source = services.content.blobs
        for digest in map(Digest, digests_of(pin for step in request.lock.lock.steps for pin in step.pins)):
            keep(digest)
            if source.exists(digest):
                _copy_blob(source, there.content.blobs, digest)
    context = request.context
    if not _reads_beside(request):
        from aos.build.context.checkout import another_checkout

        context = another_checkout(context, directory / "checkout") or context
    jobs = 1 if request.jobs != 1 else os.cpu_count() or 2
    return there, replace(
        request, context=context, output=None, use_cache=False, cache_from=(), cache_to=(), jobs=jobs
    )


def _reads_beside(request: BuildRequest) -> bool:
    """Whether a layout named relative to the context is beside it, where a copy would not find it."""
    needed = needed_stages(request.definition, request.target)
    stages = [stage for stage in request.definition.stages if stage.name in needed]
    named = [stage.base for stage in stages]
    named += [source for stage in stages for step in stage.steps for source in sources_of(step)]
    return any(name.startswith("oci:") and ".." in name[4:].split("/") for name in named)


def _await_another_second(services: BuildServices) -> None:
    """What a step takes from the clock is mostly whole seconds, and must not be the same by chance."""
    time.sleep(1 - services.clock.now() % 1)


@contextlib.contextmanager
def _another_process_state() -> Iterator[None]:
    """Another umask and, where there are several, fewer CPUs."""
    umask, cpus = os.umask(0o077), os.sched_getaffinity(0)
    try:
        if umask == 0o077:
            os.umask(0o022)
        if len(cpus) > 1:
            os.sched_setaffinity(0, cpus - {max(cpus)})
        yield
    finally:
        os.sched_setaffinity(0, cpus)
        os.umask(umask)


class _Borrowed:
    """The registry of a build elsewhere: bases are copied from the store that has them; no name is given."""

    def __init__(self, services: BuildServices, blobs: Blobs, keep: Callable[[Digest], None]) -> None:
        self._registry: PackageRegistry = services.registry
        self._source: Blobs = services.content.blobs
        self._blobs = blobs
        self._keep = keep
        self._clock = services.clock

    def resolve(self, reference: Reference | str) -> Digest:
        digest = self._registry.resolve(reference)
        self._keep(digest)
        package = load_package(self._source, digest)
        config = manifest_of(self._source, package.manifest_digest).config
        for wanted in (package.manifest_digest, config.digest, *(layer.digest for layer in package.layers)):
            _copy_blob(self._source, self._blobs, wanted)
        return package.manifest_digest

    def tag(
        self, reference: Reference | str, digest: Digest, *, name: str = "", version: str = "", size: int = 0
    ) -> Entry:
        from aos.registry.protocol import Entry

        return Entry(str(reference), digest, name, version, size, self._clock.now())

    def list(self) -> Sequence[Entry]:
        return ()

    def remove(self, reference: Reference | str) -> Sequence[Entry]:
        return ()


def _copy_blob(source: Blobs, target: Blobs, digest: Digest) -> None:
    if not target.exists(digest):
        with source.open(digest) as stream, target.writer() as writer:
            while piece := stream.read(_PIECE):
                writer.write(piece)
            writer.commit(digest)


class _Second:
    """Tells of the second build in the progress of the first: its vertices are not that one's."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._vertices: Sequence[Vertex] = ()

    def emit(self, event: Event) -> None:
        if isinstance(event, Planned):
            self._vertices = event.vertices
        elif isinstance(event, Started):
            self._progress.emit(Note(f"again: {self._vertices[event.vertex].label}"))
        elif isinstance(event, Warned):
            self._progress.emit(Warned(event.text))
