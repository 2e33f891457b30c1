"""The daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.compose.packages import content_store, local_registry
from aos.compose.runtimes import bridge_network, policy, runtime

if TYPE_CHECKING:
    from pathlib import Path

    from aos.config import Config
    from aos.content.store import ContentStore
    from aos.runtime.facade import RuntimeFacade


__all__ = ["enter_user_namespace", "serve_node"]


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
                            policy(config),
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
