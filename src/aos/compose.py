"""The composition root: the one place that names which implementation stands behind each protocol.

Every function imports what it composes when it is called, so that a verb pays only for what it uses.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any, Literal

    from aos.agentfile.extends import Package as PackageToExtend
    from aos.agentfile.lock import Lock
    from aos.agentfile.resolve import Resolved
    from aos.build import BuildRequest, BuildServices
    from aos.build.cache.prune import Item as CacheItem
    from aos.build.cache.store import CacheStore
    from aos.build.explain.why import Explanation
    from aos.build.lock.locked import LockUse
    from aos.build.plugins import Plugins
    from aos.build.progress.events import How
    from aos.config import Config
    from aos.content.compression import Compression
    from aos.content.store import ContentStore
    from aos.oci.descriptor import Descriptor
    from aos.oci.digest import Digest
    from aos.package import Package
    from aos.package.compare import PackageDiff
    from aos.package.history import HistoryEntry
    from aos.package.usage import PackageUsage, RegistryUsage
    from aos.registry.client import DistributionClient
    from aos.registry.exchange import Exchange
    from aos.registry.local import LocalRegistry
    from aos.runtime.facade import RuntimeFacade
    from aos.runtime.network.examine import Findings
    from aos.runtime.network.maker import BridgeMaker
    from aos.runtime.policy import Policy
    from aos.runtime.protocol import Runtime

__all__ = ["build", "build_services", "content_store", "exchange", "local_registry", "runtime"]


def content_store(config: Config) -> ContentStore:
    from aos.content.store import ContentStore

    return ContentStore(config.root / "content")


def local_registry(config: Config, content: ContentStore) -> LocalRegistry:
    from aos.registry.local import LocalRegistry

    return LocalRegistry(config.root / "registry", content)


def exchange(
    config: Config,
    environ: Mapping[str, str],
    *,
    plain_http: bool = False,
    report: Callable[[Descriptor, str], None] | None = None,
) -> Exchange:
    """The way in and out for packages; the HTTP stack is imported when a registry is talked to."""
    from aos.registry.exchange import Exchange

    content = content_store(config)

    def connect() -> DistributionClient:
        from aos.registry.client import DistributionClient

        return DistributionClient(content, environ, plain_http=plain_http, report=report)

    return Exchange(content, local_registry(config, content), connect)


def package_history(config: Config, reference: str, *, sizes: bool) -> list[tuple[HistoryEntry, int | None]]:
    """The layers of a local package, newest first; with `sizes` each is read for what it unpacks to."""
    from aos.package.history import history, unpacked_size

    with _kept(config, reference) as (content, _, (package,)):
        return [
            (entry, unpacked_size(content.blobs, entry.layer) if sizes and entry.layer else None)
            for entry in history(package)
        ]


def package_diff(config: Config, first: str, second: str | None, *, times: bool = False) -> PackageDiff:
    """What is different from `first` to `second`; without that, from the base of `first` to `first`."""
    from aos.package.compare import compare

    with _kept(config, first, *([second] if second else [])) as (content, registry, packages):
        if second is None:
            from aos.registry.bases import local_base

            return compare(
                content.blobs, local_base(packages[0], registry, content.blobs), packages[0], times=times
            )
        return compare(content.blobs, packages[0], packages[1], times=times)


def package_diff_facts(diff: PackageDiff, shown: Mapping[str, Any]) -> dict[str, Any]:
    """A diff as JSON, with the sections in `shown` (packages, config, files)."""
    from aos.package.describe import describe_diff

    return describe_diff(diff, shown)


def package_usage(config: Config, reference: str, *, count: int) -> PackageUsage:
    """Where the bytes of a local package are; its layers know which other local packages have them."""
    from aos.package.usage import inside

    with _kept(config, reference) as (content, registry, (package,)):
        others = [known for known, _ in _named(content, registry).values()]
        return inside(content.blobs, package, others, count=count)


def registry_usage(config: Config) -> RegistryUsage:
    """How the packages of the local registry share what is stored."""
    from aos.package.usage import shared

    content = content_store(config)
    return shared(_named(content, local_registry(config, content)))


def _named(content: ContentStore, registry: LocalRegistry) -> dict[Digest, tuple[Package, list[str]]]:
    """Every package that has a name here, and its names."""
    from aos.package import load_package

    found: dict[Digest, tuple[Package, list[str]]] = {}
    for entry in registry.list():
        if entry.digest not in found:
            found[entry.digest] = (load_package(content.blobs, entry.digest), [])
        found[entry.digest][1].append(entry.reference)
    return found


@contextlib.contextmanager
def _kept(config: Config, *references: str) -> Iterator[tuple[ContentStore, LocalRegistry, list[Package]]]:
    """Local packages that no collection takes away while they are looked at."""
    from aos.package import load_package

    content = content_store(config)
    registry = local_registry(config, content)
    with content.leases.hold("look") as lease:
        packages = []
        for reference in references:
            lease.add(digest := registry.resolve(reference))
            packages.append(load_package(content.blobs, digest))
        yield content, registry, packages


def build_request(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    tags: Sequence[str] = (),
    labels: Sequence[str] = (),
    output: Path | None = None,
    build_args: Sequence[str] = (),
    target: str | None = None,
    platform: str = "",
    use_lock: bool = True,
    use_cache: bool = True,
    fresh_stages: Sequence[str] = (),
    jobs: int = 0,
    cache_from: Sequence[Path] = (),
    cache_to: Sequence[Path] = (),
    secrets: Sequence[str] = (),
    ssh: Sequence[str] = (),
    compression: Compression = "gzip",
    epoch: str = "",
    warn: Callable[[str], None] = lambda text: None,
) -> BuildRequest:
    """To build the Agentfile of a context, or `file`. `secrets`, `ssh`: as the options of `aos build` have them.
    `warn` is told of caches to read that do not exist (yet): the build goes on without them."""
    from aos.agentfile.labels import labelled
    from aos.build import BuildRequest, source_date_epoch
    from aos.ids import RandomIds
    from aos.oci.reference import parse_reference

    definition = agentfile(config, environ, context=context, file=file, build_args=build_args).definition
    return BuildRequest(
        definition=labelled(definition, labels),
        context=context,
        lock=_honoured(_lock_of(context, file)[1]) if use_lock else None,
        tags=tuple(dict.fromkeys(map(parse_reference, tags))),
        output=output,
        target=target,
        platform=platform,
        use_cache=use_cache,
        fresh_stages=frozenset(fresh_stages),
        cache_from=_existing_caches(environ, cache_from, warn),
        cache_to=tuple(_cache(environ, directory, create=True) for directory in cache_to),
        epoch=source_date_epoch(environ, context, epoch),
        jobs=jobs,
        id=RandomIds().fresh(),
        **_lent(environ, secrets, ssh),
        compression=compression,
    )


def build(
    config: Config,
    environ: Mapping[str, str],
    request: BuildRequest,
    progress: How = "quiet",
    warnings: Iterable[str] = (),
    *,
    twice: bool = False,
) -> Package:
    """Build; progress goes to standard error. `warnings` are what there was to warn of before. `twice`: build again
    in other circumstances, and raise FailedPrecondition (`not-reproducible`) when that gives another package."""
    from aos.build import Warned, build_blocking, open_progress

    with open_progress(progress) as shown:
        for warning in warnings:
            shown.emit(Warned(warning))
        if twice:
            from aos.build.reproduce.again import build_twice

            def elsewhere(root: Path, environ: Mapping[str, str]) -> BuildServices:
                return build_services(config, environ, root)

            return build_twice(request, build_services(config, environ), shown, elsewhere)
        return build_blocking(request, build_services(config, environ), shown)


def build_plan(
    config: Config, environ: Mapping[str, str], request: BuildRequest, form: Literal["text", "json", "dot"]
) -> str:
    """What a build would do, and what is known of it; nothing is executed."""
    from aos.build import outline
    from aos.build.plan.shown import print_plan

    return print_plan(outline(request, build_services(config, environ)), form)


def build_explanation(config: Config, id: str) -> Explanation:
    """Why the steps of a build were executed, or were not. `id`: of the build, its beginning, or `LAST`."""
    from aos.build.explain.records import Records
    from aos.build.explain.why import explain

    records = Records(config.root / "build/records")
    build, earlier = records.find(id)
    return explain(build, earlier, records.files)


def cache_items(config: Config) -> list[CacheItem]:
    """What builds keep: results and mounts, the last used first."""
    from aos.build.cache.prune import cache_items

    return cache_items(config.root / "build", content_store(config))


def prune_cache(config: Config, policy: Mapping[str, Any]) -> list[CacheItem]:
    """Remove of it what `aos.build.cache.prune.Policy` dooms; `policy` has its fields."""
    from aos.build.cache.prune import Policy, prune_cache
    from aos.clock import SystemClock

    return prune_cache(config.root / "build", content_store(config), Policy(**policy), SystemClock().now())


def _existing_caches(
    environ: Mapping[str, str], directories: Sequence[Path], warn: Callable[[str], None]
) -> tuple[CacheStore, ...]:
    from aos.errors import NotFound

    found = []
    for directory in directories:
        try:
            found.append(_cache(environ, directory, create=False))
        except NotFound as error:
            warn(error.message)
    return tuple(found)


def _cache(environ: Mapping[str, str], directory: Path, *, create: bool) -> CacheStore:
    from aos.build.cache.directory import CacheDirectory

    return CacheDirectory(directory, environ, create=create)


def _honoured(lock: Lock | None) -> LockUse | None:
    if lock is None:
        return None
    from aos.build.lock.locked import Honour

    return Honour(lock)


def _lock_of(context: Path, file: Path | None) -> tuple[Path, Lock | None]:
    """Where the lock of an Agentfile lies, and what it says if it is there; the file of none is not looked into."""
    from pathlib import Path

    from aos.build import find_agentfile

    path = Path(f"{file or find_agentfile(context)}.lock")
    if not (path.exists() or path.is_symlink()):
        return path, None
    from aos.agentfile.lock import load_lock

    return path, load_lock(path)


def lock(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    build_args: Sequence[str] = (),
    secrets: Sequence[str] = (),
    ssh: Sequence[str] = (),
    upgrade: Collection[str] | None = (),
    progress: How = "quiet",
) -> tuple[Path, list[str]]:
    """Write the lock of an Agentfile: where it is, and what has changed in it. `upgrade`: names; None: everything."""
    from aos.agentfile.lock import save_lock
    from aos.build import open_progress
    from aos.build.lock.locking import Upgrade, changes, lock_blocking

    request = build_request(
        config,
        environ,
        context=context,
        file=file,
        build_args=build_args,
        use_lock=False,
        secrets=secrets,
        ssh=ssh,
    )
    path, old = _lock_of(context, file)
    chosen = Upgrade(everything=upgrade is None, names=frozenset(upgrade or ()))
    with open_progress(progress) as shown:
        new = lock_blocking(request, build_services(config, environ), shown, old, chosen)
    if new != old:
        save_lock(new, path)
    return path, changes(old, new)


def check_lock(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    build_args: Sequence[str] = (),
) -> tuple[Path, list[str]]:
    """Where the lock is, and how it differs from the Agentfile; nothing is built."""
    from aos.build.lock.locking import check_blocking

    request = build_request(
        config, environ, context=context, file=file, build_args=build_args, use_lock=False
    )
    path, found = _lock_of(context, file)
    if found is None:
        return path, ["there is no lock"]
    return path, check_blocking(request, build_services(config, environ), found)


def _lent(environ: Mapping[str, str], secrets: Sequence[str], ssh: Sequence[str]) -> dict[str, Any]:
    """What of a build request steps may use and nothing keeps."""
    if not secrets and not ssh:
        return {}
    import resource

    from aos.build.steps.secrets import parse_secret
    from aos.build.steps.ssh_agents import parse_ssh

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # secrets are in this process's memory
    return {
        "secrets": tuple(parse_secret(text, environ) for text in secrets),
        "ssh": tuple(parse_ssh(text, environ) for text in ssh),
    }


def agentfile(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    build_args: Sequence[str] = (),
) -> Resolved:
    """Read the Agentfile of a context, or `file`, with all that it extends.

    `build_args` are the words of `--build-arg`: NAME=VALUE, or NAME for the value in the environment."""
    from aos.agentfile import build_arguments, load_resolved
    from aos.build import find_agentfile

    return load_resolved(
        file or find_agentfile(context),
        arguments=build_arguments(build_args, environ),
        parents=lambda reference: _package_to_extend(config, reference),
    )


def _package_to_extend(config: Config, reference: str) -> PackageToExtend:
    """A local package by its name and digest, or by its digest where that is how it was asked for."""
    from aos.agentfile.extends import Package

    with _kept(config, reference) as (_, registry, (package,)):
        digest = package.manifest_digest
        named = [
            entry for entry in registry.list() if entry.digest == digest and entry.reference == reference
        ]
        return Package(f"{named[0].reference}@{digest}" if named else str(digest), package.definition)


def agentfile_start(name: str) -> tuple[dict[str, str], str]:
    """The files of a new agent, and the reference that its build gets. Raises what is wrong with the name."""
    from aos.agentfile import AgentfileError, loads, starting_files
    from aos.errors import InvalidArgument

    files = starting_files(name)
    try:
        metadata = loads(files["Agentfile"].encode()).metadata
    except AgentfileError as error:
        raise InvalidArgument(
            f"{name!r:.60} cannot name a package", code="name-invalid", hint=error.problems[0].hint, name=name
        ) from error
    return files, f"{metadata.name}:{metadata.version}"


def agentfile_schema() -> dict[str, Any]:
    from aos.agentfile import json_schema

    return json_schema()


def build_services(config: Config, environ: Mapping[str, str], root: Path | None = None) -> BuildServices:
    """What builds work with; the runtime is made when a step needs it. `root`: where content and state of builds
    are, instead of the installation's; sandboxes stay where its sweeps find them."""
    from dataclasses import replace

    from aos.build import BuildServices
    from aos.clock import SystemClock
    from aos.ids import RandomIds

    place = config if root is None else replace(config, root=root)
    content = content_store(place)
    return BuildServices(
        content=content,
        registry=local_registry(place, content),
        runtime=lambda: runtime(config, content),
        directory=place.root / "build",
        environ=environ,
        clock=SystemClock(),
        ids=RandomIds(),
        cache_size=config.build_cache,
        plugins=build_plugins(environ),
    )


def build_plugins(environ: Mapping[str, str]) -> Plugins:
    """Raise InvalidArgument (`plugin-timeout-invalid`)."""
    from datetime import timedelta

    from aos.build.plugins import EXECUTE_LIMIT, INPUTS_LIMIT, Plugins
    from aos.errors import InvalidArgument

    text = environ.get("AOS_PLUGIN_TIMEOUT")
    if not text:
        return Plugins(environ=environ)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= EXECUTE_LIMIT.total_seconds() * 24):
        raise InvalidArgument(
            f"AOS_PLUGIN_TIMEOUT is {text!r:.40}, which is not a number of seconds up to a day",
            code="plugin-timeout-invalid",
            hint="unset it, or set it to a whole number: AOS_PLUGIN_TIMEOUT=7200",
        )
    limit = timedelta(seconds=int(text))
    return Plugins(environ=environ, inputs_limit=min(INPUTS_LIMIT, limit), execute_limit=limit)


def bridge_network(config: Config) -> BridgeMaker:
    """What connects sandboxes."""
    import os

    from aos.rootless.user import user_id
    from aos.runtime.network.maker import BridgeMaker

    ordinary = user_id(os.environ) != 0
    return BridgeMaker(config.installation, config.state / "network", config.network_pool, ordinary=ordinary)


def runtime(config: Config, content: ContentStore, network: BridgeMaker | None = None) -> RuntimeFacade:
    """Every backend of this installation, `config.runtime` by default."""
    from functools import partial

    from aos.runtime.backends.gvisor import Runsc
    from aos.runtime.backends.oci import Runc
    from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
    from aos.runtime.choice import check_isolation
    from aos.runtime.deferred import deferred
    from aos.runtime.facade import RuntimeFacade

    supervised = SupervisedConfig(
        root=config.root,
        state=config.state,
        cgroup_parent=config.installation,
        conmon=config.conmon,
        seccomp=config.seccomp,
        users=config.users,
        ids=config.ids,
        device_hooks=config.allow_host_hooks,
    )
    network = network or bridge_network(config)
    return RuntimeFacade(
        {
            "oci": SupervisedRuntime(supervised, Runc(config.oci_runtime), content, network),
            "gvisor": SupervisedRuntime(supervised, Runsc(config.runsc), content, network),
            **{
                name: deferred(
                    partial(_containerd, config, content, network, name), config.root / "sandboxes" / name
                )
                for name in ("containerd", "kata")
            },
        },
        config.runtime,
        check_isolation(config.isolation, "[runtime] isolation"),
    )


def _containerd(config: Config, content: ContentStore, network: BridgeMaker, backend: str) -> Runtime:
    from aos.runtime.backends.containerd import ContainerdConfig, ContainerdRuntime

    containerd = ContainerdConfig(
        root=config.root,
        state=config.state,
        installation=config.installation,
        address=config.containerd,
        namespace=config.containerd_namespace,
        snapshotter=config.containerd_snapshotter,
        handler=config.containerd_handler,
        seccomp=config.seccomp,
        oci_runtime=config.oci_runtime,
        users=config.users,
        ids=config.ids,
        device_hooks=config.allow_host_hooks,
        kata_config=config.kata_config,
    )
    make = ContainerdRuntime.kata if backend == "kata" else ContainerdRuntime
    return make(containerd, content, network)


class _BuildCache:
    """The builds' room, imported when somebody asks what it takes: the daemon does not build."""

    def __init__(self, directory: Path, content: ContentStore, runtime: RuntimeFacade) -> None:
        self._directory = directory
        self._content = content
        self._runtime = runtime

    def size(self) -> tuple[int, int]:
        from aos.build.cache.prune import cache_use

        use = cache_use(self._directory)
        return use.entries, use.bytes

    def forget(self) -> None:
        from aos.build.cache.prune import forget

        forget(self._directory, self._content)

    async def sweep(self) -> None:
        from aos.build.workspace.sweep import sweep

        await sweep(self._directory, self._runtime)


def _policy(config: Config) -> Policy:
    from aos.runtime.capabilities import capability_name
    from aos.runtime.policy import Policy, parse_paths

    names = config.capabilities
    return Policy(
        own=(config.root, config.state),
        mounts=parse_paths(config.mounts, "[mounts] allow"),
        capabilities=None if names is None else frozenset(map(capability_name, names)),
        unconfined=config.unconfined,
        host_users=config.host_users,
        own_users=config.users == "private" or not config.host_users,
        host_network=config.network_host == "allow",
    )


def network_findings(config: Config) -> Findings:
    """What would keep agents of root's installation from networks of their own."""
    from aos.runtime.network.examine import examine_network

    network = bridge_network(config)()
    try:
        return examine_network(network)
    finally:
        network.close()


def own_user_ids(config: Config, snapshots: Path) -> tuple[int, int]:
    """(the first, for how many agents at once). FailedPrecondition `user-namespace-unavailable` where no agent can have
    any whose layers are below `snapshots`."""
    from aos.runtime.backends.supervised.user_ids import check_ids
    from aos.runtime.id_ranges import IdRanges

    ranges = IdRanges.of_host(config.ids)
    check_ids(ranges, snapshots)
    return ranges.pool[0], len(ranges)


def enter_user_namespace(config: Config) -> None:
    """What owns files of more than one user, and mounts: an ordinary user's processes do in the user's own namespace.

    For a process with one thread. Errors as `aos.rootless.namespace.enter`; nothing happens for root."""
    import os

    if os.getuid() != 0:
        from aos.rootless.namespace import enter

        enter(config.state, os.environ)
        config.root.mkdir(mode=0o700, parents=True, exist_ok=True)


def serve_node(*, ready: int | None = None) -> None:
    """Be the node's daemon until it is told to stop. `ready`: a descriptor that hears how the start went.

    Without one it is in the foreground: it logs to standard error, and raises what keeps it from starting."""
    import asyncio
    import os

    from aos.clock import SystemClock
    from aos.config import load_config
    from aos.errors import AlreadyExists, AosError, FailedPrecondition
    from aos.ids import RandomIds
    from aos.kernel.journal import SqliteJournal
    from aos.node.main import Ready, already_running, boot_id, prepare, serve, single_instance
    from aos.node.programs import PackagePrograms
    from aos.node.secrets import AgentSecrets
    from aos.node.volumes import Volumes

    word = Ready(ready)
    try:
        config = load_config(os.environ)
        enter_user_namespace(config)
        prepare(config, foreground=ready is None)
        with single_instance(config):
            content, network = content_store(config), bridge_network(config)
            registry = local_registry(config, content)
            backends = runtime(config, content, network)
            volumes = Volumes(config.root / "volumes")
            journal = SqliteJournal(config.root / "node" / "journal.sqlite3")
            try:
                asyncio.run(
                    serve(
                        config,
                        runtime=backends,
                        network=network,
                        journal=journal,
                        programs=PackagePrograms(
                            content,
                            registry,
                            volumes,
                            AgentSecrets(config.state / "secrets"),
                            _policy(config),
                        ),
                        content=content,
                        registry=registry,
                        builds=_BuildCache(config.root / "build", content, backends),
                        volumes=volumes,
                        clock=SystemClock(),
                        ids=RandomIds(),
                        boot=boot_id(),
                        ready=word,
                    )
                )
            finally:
                journal.close()
    except AosError as error:
        if ready is None:
            raise
        if isinstance(error, AlreadyExists) and already_running(config):
            word.serving()
        else:
            word.failed(error)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        word.failed(
            FailedPrecondition(
                f"{where}{error.strerror or error}",
                code="system",
                hint="the node's daemon cannot start; `aos doctor` checks the host",
            )
        )
        raise
