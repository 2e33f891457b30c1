"""The composition root: the one place that names which implementation stands behind each protocol.

Every function imports what it composes when it is called, so that a verb pays only for what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aos.build import BuildServices
    from aos.config import Config
    from aos.content.store import ContentStore
    from aos.oci.descriptor import Descriptor
    from aos.registry.client import DistributionClient
    from aos.registry.exchange import Exchange
    from aos.registry.local import LocalRegistry

__all__ = ["build_services", "content_store", "exchange", "local_registry"]


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


def build_services(config: Config, environ: Mapping[str, str]) -> BuildServices:
    """What builds work with; the runtime is made when a step needs it."""
    from aos.build import BuildServices
    from aos.clock import SystemClock
    from aos.ids import RandomIds

    content = content_store(config)
    return BuildServices(
        content=content,
        registry=local_registry(config, content),
        runtime=lambda: runtime(config, content),
        directory=config.root / "build",
        environ=environ,
        clock=SystemClock(),
        ids=RandomIds(),
    )
